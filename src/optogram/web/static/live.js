// What only a server can do: work that is told as it goes, forms that answer a choice, a slider.
const wording = (job) => {
  if (job.error) return job.error;
  if (job.state === "waiting") return "waiting for its turn";
  if (job.state !== "running") return job.state;
  const left = job.left === null ? "" : `, about ${Math.max(1, Math.round(job.left))} s left`;
  return job.total ? `${job.what}: ${job.done} of ${job.total}${left}` : "starting";
};

const after = (panel) => {
  const unsaved = [...document.querySelectorAll("textarea")].some((t) => t.value !== t.defaultValue);
  if (!unsaved) return location.reload();
  const link = document.createElement("a");
  link.href = location.href;
  link.textContent = "Done: show the result";
  panel.append(link);
};

const watch = (panel) => {
  const part = (name) => panel.querySelector(`[data-part=${name}]`);
  const source = new EventSource(panel.dataset.events);
  source.addEventListener("job", (event) => {
    const job = JSON.parse(event.data);
    part("line").textContent = wording(job);
    part("state").textContent = job.state;
    part("state").className = `badge ${job.state}`;
    const bar = part("bar");
    if (job.total) { bar.max = job.total; bar.value = job.done; }
    if (job.preview) { part("picture").src = job.preview; part("picture").hidden = false; }
    if (["done", "failed", "cancelled"].includes(job.state)) {
      source.close();
      part("cancel")?.remove();
      panel.dataset.state = job.state;
      if (job.state === "done" || panel.dataset.after === "always") after(panel);
    }
  });
  window.addEventListener("pagehide", () => source.close());
  panel.querySelector("form")?.addEventListener("submit", async (event) => {
    event.preventDefault();
    part("cancel").disabled = true;
    part("line").textContent = "stopping at the next step";
    await fetch(event.target.action, { method: "POST", headers: { accept: "application/json" } });
  });
};

for (const panel of [...document.querySelectorAll("[data-job]")].slice(0, 4)) {
  if (["waiting", "running"].includes(panel.dataset.state)) watch(panel);
}

// A choice that decides what the rest of a form asks.
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
});

// The occluder at its true size over the image.
for (const slider of document.querySelectorAll("[data-occluder]")) {
  const range = document.querySelector("[data-patch]");
  const mark = slider.querySelector(".mark");
  const shown = document.querySelector("output[for=patch]");
  const draw = () => {
    const share = (100 * range.value) / Number(slider.dataset.occluder);
    Object.assign(mark.style, { width: `${share}%`, height: `${share}%`, left: `${50 - share / 2}%`, top: `${50 - share / 2}%` });
    shown.textContent = `${range.value} pixels`;
  };
  range.addEventListener("input", draw);
  draw();
}

// An image dropped anywhere on the dotted field is sent as if it had been chosen.
for (const field of document.querySelectorAll(".drop")) {
  const input = field.querySelector("input[type=file]");
  for (const kind of ["dragover", "dragleave", "drop"]) {
    field.addEventListener(kind, (event) => {
      event.preventDefault();
      field.classList.toggle("over", kind === "dragover");
    });
  }
  field.addEventListener("drop", (event) => {
    if (!event.dataTransfer.files.length) return;
    input.files = event.dataTransfer.files;
    input.form.requestSubmit();
  });
  input.addEventListener("change", () => input.form.requestSubmit());
}
