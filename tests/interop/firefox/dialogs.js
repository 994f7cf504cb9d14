// Answers Firefox's own dialogs as a person would: it types the PIN, picks the certificate and presses the buttons.
// Runs in the chrome context. arguments[0] is the plan: {pins: [...], certificate: "...", module: {name, path}}. Each
// PIN is used for one prompt, then prompts are cancelled; a certificate that is not offered, or null, sends none; the
// module is for the Load dialog of the device manager.
// What was met is left in `met`, one record for each dialog.

const plan = arguments[0];
const pins = [...plan.pins];
const met = [];
const found = new WeakSet();
const answered = new WeakSet();

function press(dialog, button) {
  dialog.getButton(button).click();
}

function answerPrompt(window, record) {
  record.kind = window.args.promptType;
  record.text = window.args.text;
  const dialog = window.document.getElementById("commonDialog");
  if (record.kind != "promptPassword" || !pins.length) {
    record.answer = "cancel";
    press(dialog, dialog.getButton("cancel").hidden ? "accept" : "cancel");
    return;
  }
  window.document.getElementById("password1Textbox").value = pins.shift();
  record.answer = "PIN";
  press(dialog, "accept");
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
  for (const [id, text] of [["device_name", plan.module.name], ["device_path", plan.module.path]]) {
    const box = window.document.getElementById(id);
    box.value = text;
    box.dispatchEvent(new window.Event("change"));
  }
  record.answer = plan.module.path;
  press(window.document.querySelector("dialog"), "accept");
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
    const record = {};
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
