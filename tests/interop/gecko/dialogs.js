// Answers the dialogs of Firefox and Thunderbird as a person would: types the PIN, picks the certificate, presses buttons.
// Runs in the chrome context. arguments[0] is the plan, all of it optional:
//   pins: [...]           each is used for one prompt, then prompts are cancelled
//   certificate: "..."    the one to choose is the first that contains this; where none does, or without it, none is sent
//   module: {name, path}  for the Load dialog of the device manager
//   change: {old, new}    for its Change Password dialog
//   trust: true           trusts an authority that is imported for websites
//   confirm: true         says yes to questions; without it they are cancelled
// What was met is left in `met`, one record for each dialog: kind, text, answer, what was offered, and when.

const plan = arguments[0];
const pins = [...plan.pins ?? []];
const met = [];
const found = new WeakSet();
const answered = new WeakSet();

// Pressed from a timer of the dialog: what it does may open the next dialog and wait for it, and we must go on meanwhile.
function press(dialog, button) {
  dialog.ownerDocument.defaultView.setTimeout(() => dialog.getButton(button).click(), 0);
}

function type(window, texts) {
  for (const [id, text] of Object.entries(texts)) {
    const box = window.document.getElementById(id);
    box.value = text;
    for (const event of ["input", "change"]) {
      box.dispatchEvent(new window.Event(event));
    }
  }
}

function answerPrompt(window, record) {
  record.kind = window.args.promptType;
  record.text = window.args.text;
  const dialog = window.document.getElementById("commonDialog");
  if (record.kind == "promptPassword" && pins.length) {
    window.document.getElementById("password1Textbox").value = pins.shift();
    record.answer = "PIN";
    press(dialog, "accept");
    return;
  }
  const yes = dialog.getButton("cancel").hidden || (plan.confirm && record.kind != "promptPassword");
  record.answer = yes ? "accept" : "cancel";
  press(dialog, record.answer);
}

function answerChooser(window, record) {
  record.kind = "certificate";
  const list = window.document.getElementById("nicknames");
  const offered = [...list.menupopup.children];
  record.offered = offered.map(item => item.label);
  record.text = window.document.getElementById("clientAuthCertDetailsStoredOn").dataset.l10nArgs;
  const wanted = offered.find(item => plan.certificate && item.label.includes(plan.certificate));
  if (!wanted) {
    record.answer = "cancel";
    press(window.document.getElementById("certAuthAsk"), "cancel");
    return;
  }
  list.selectedItem = wanted;
  window.document.getElementById("rememberSetting").value = "0"; // for this connection only
  record.answer = wanted.label;
  press(window.document.getElementById("certAuthAsk"), "accept");
}

function answerLoad(window, record) {
  record.kind = "load";
  type(window, { device_name: plan.module.name, device_path: plan.module.path });
  record.answer = plan.module.path;
  press(window.document.querySelector("dialog"), "accept");
}

function answerChange(window, record) {
  record.kind = "changePassword";
  record.text = window.document.getElementById("tokenName").dataset.l10nArgs;
  record.first = window.document.getElementById("oldpw").hidden;
  type(window, { oldpw: plan.change.old, pw1: plan.change.new, pw2: plan.change.new });
  record.answer = "accept";
  press(window.document.getElementById("set_password"), "accept");
}

function answerDelete(window, record) {
  record.kind = "deleteCertificate";
  record.offered = [...window.document.getElementById("certlist").querySelectorAll("label")].map(label => label.getAttribute("value"));
  record.answer = plan.confirm ? "accept" : "cancel";
  press(window.document.getElementById("deleteCertificate"), record.answer);
}

function answerTrust(window, record) {
  record.kind = "trust";
  record.text = window.document.getElementById("trustHeader").textContent;
  window.document.getElementById("trustSSL").checked = true;
  record.answer = "trusted for websites";
  press(window.document.getElementById("download_cert"), "accept");
}

function answerPicker(window, record) {
  record.kind = "pickCertificate";
  const list = window.document.getElementById("nicknames");
  const offered = [...list.menupopup.children];
  record.offered = offered.map(item => item.label);
  const wanted = offered.find(item => plan.certificate && item.label.includes(plan.certificate));
  if (wanted) {
    list.selectedItem = wanted;
  }
  record.answer = wanted ? wanted.label : "cancel";
  press(window.document.getElementById("certPicker"), wanted ? "accept" : "cancel");
}

// Each answer is given one tick after its dialog was first found ready: the chooser listens to its buttons only once it
// has shown a certificate's details, and a prompt needs its own set-up to end.
const dialogs = {
  "chrome://global/content/commonDialog.xhtml": {
    ready: window => window.Dialog?.ui?.button0 && !window.Dialog.ui.button0.disabled,
    answer: answerPrompt,
  },
  "chrome://pippki/content/clientauthask.xhtml": {
    ready: window => window.document.getElementById("clientAuthCertDetailsStoredOn")
      ?.dataset.l10nArgs.match(/"storedOn":"[^"]/),
    answer: answerChooser,
  },
  "chrome://pippki/content/load_device.xhtml": {
    ready: () => plan.module,
    answer: answerLoad,
  },
  "chrome://pippki/content/changepassword.xhtml": {
    ready: window => plan.change && window.token,
    answer: answerChange,
  },
  "chrome://pippki/content/deletecert.xhtml": {
    ready: window => window.document.getElementById("certlist").childElementCount,
    answer: answerDelete,
  },
  "chrome://pippki/content/downloadcert.xhtml": {
    ready: window => plan.trust && window.document.getElementById("trustHeader").textContent,
    answer: answerTrust,
  },
  "chrome://messenger/content/certpicker.xhtml": { // Thunderbird's account settings
    ready: window => window.document.getElementById("nicknames").menupopup.childElementCount,
    answer: answerPicker,
  },
};

function everyDocument() {
  const windows = [];
  for (const top of Services.wm.getEnumerator(null)) {
    const shells = top.docShell?.getAllDocShellsInSubtree(
      Ci.nsIDocShellTreeItem.typeAll, Ci.nsIDocShell.ENUMERATE_FORWARDS);
    for (const shell of shells ?? []) {
      windows.push(shell.domWindow);
    }
  }
  return windows;
}

function tick() {
  for (const window of everyDocument()) {
    const document = window.document;
    const known = dialogs[window.location.href];
    if (!known || answered.has(document) || document.readyState != "complete" || !known.ready(window)) {
      continue;
    }
    if (!found.has(document)) {
      found.add(document);
      continue;
    }
    answered.add(document);
    const record = { at: Date.now() };
    met.push(record);
    try {
      known.answer(window, record);
    } catch (failure) {
      record.failure = String(failure);
    }
  }
}

const timer = Cc["@mozilla.org/timer;1"].createInstance(Ci.nsITimer);
timer.initWithCallback(tick, 100, Ci.nsITimer.TYPE_REPEATING_SLACK);
globalThis.answering = { met, timer }; // held here, or the timer would be collected
