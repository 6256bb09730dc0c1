"""What a visitor of a layer's page sees, asked in the browser."""

SEEN = """() => {
  const sight = (element) => {
    const box = element.getBoundingClientRect();
    return box.bottom > 0 && box.top < innerHeight;
  };
  // Only of chunks that can be seen: to ask elsewhere would have the browser lay out what it skips.
  const cells = [...document.querySelectorAll('.chunk')].filter(sight)
    .flatMap((chunk) => [...chunk.querySelectorAll('.tile i')]).filter(sight);
  const loaded = new Set(performance.getEntriesByType('resource')
    .filter((entry) => entry.responseEnd > 0).map((entry) => entry.name));
  const sheet = (cell) => getComputedStyle(cell).backgroundImage.slice(5, -2);
  const last = cells.length ? cells[cells.length - 1].getBoundingClientRect().bottom : 0;
  const filled = last > innerHeight - 40 || document.readyState !== 'loading';
  return cells.length > 0 && filled && cells.every((cell) => loaded.has(sheet(cell)));
}"""
"""Whether tiles fill the window, and the sheets of all of them have come."""

PAINTED = "() => new Promise((then) => requestAnimationFrame(() => requestAnimationFrame(then)))"
"""Waits until what is there has been painted."""
