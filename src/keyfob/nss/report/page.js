"use strict";
// Filters over the rows that carry data-verdict, data-group and data-text; and links that open the details around their aim.
document.documentElement.classList.remove("no-script");
const rows = Array.from(document.querySelectorAll("[data-verdict]"));
const boxes = Array.from(document.querySelectorAll(".filters input[type=checkbox]"));
const search = document.querySelector(".filters input[type=search]");
const left = document.querySelector("#shown");

function apply() {
  const verdicts = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
  const words = search ? search.value.toLowerCase().split(/\s+/).filter(Boolean) : [];
  let shown = 0;
  for (const row of rows) {
    const visible = verdicts.has(row.dataset.verdict) && words.every((word) => row.dataset.text.includes(word));
    row.hidden = !visible;
    shown += visible;
  }
  if (left) left.textContent = `${shown} of ${rows.length}`;
}

function reveal() {
  const aim = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!aim) return;
  for (let parent = aim.parentElement; parent; parent = parent.parentElement) {
    if (parent.tagName === "DETAILS") parent.open = true;
  }
  aim.hidden = false;
  aim.scrollIntoView({ block: "center" });
}

boxes.forEach((box) => box.addEventListener("change", apply));
if (search) search.addEventListener("input", apply);
window.addEventListener("hashchange", reveal);
if (rows.length) apply();
reveal();
