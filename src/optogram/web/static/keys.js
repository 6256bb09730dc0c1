// Keys and the copy button: they work in the explorer and in a folder opened from the disk.
(() => {
  "use strict";
  const typing = (element) => element.closest("input, textarea, select, [contenteditable]") !== null;
  const follow = (selector) => document.querySelector(selector)?.click();
  const help = () => document.querySelector("dialog.help");

  const keys = {
    ArrowLeft: () => follow("a[rel=prev][href]"),
    ArrowRight: () => follow("a[rel=next][href]"),
    k: () => follow("a[rel=prev][href]"),
    j: () => follow("a[rel=next][href]"),
    u: () => [...document.querySelectorAll("a[data-up]")].pop()?.click(),
    "/": () => document.getElementById("q")?.focus(),
    "?": () => help()?.showModal(),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || help()?.open) return;
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const text = button.dataset.copy || location.href;
    const before = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      window.prompt("Copy this:", text); // a page without https may not write to the clipboard
    }
    setTimeout(() => { button.textContent = before; }, 1500);
  });

  document.querySelector(".keys-hint")?.removeAttribute("hidden");
})();
