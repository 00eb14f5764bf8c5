// The rest of the page, and its beginning.

// One of the legend's lists: swatches with what they mean.
function legendOf(title, entries) {
  if (!entries.length) return;
  const section = element('section', '', one('.legend .lists'));
  element('h3', '', section).textContent = title;
  const list = element('ul', '', section);
  for (const [shown, name, meaning] of entries) {
    const item = element('li', '', list);
    const text = element('span', '', item);
    element('b', '', text).textContent = name;
    if (meaning) text.append(` ${meaning}`);
    item.prepend(swatch(shown));
  }
}

// Only what occurs.
function legend() {
  const lanes = data.figures.flatMap((figure) => figure.lanes);
  const phasesIn = (some) => {
    const seen = new Set(some.flatMap((lane) =>
      lane.bars.flatMap((bar) => [...phasesOf(bar)].map(([phase]) => phase))));
    return Object.entries(PHASES).filter(([phase]) => seen.has(phase))
      .map(([phase, [name, meaning]]) => [{ phase }, name, meaning]);
  };
  const isClient = (lane) => lane.who === 'client';
  legendOf('A server’s lane', phasesIn(lanes.filter((it) => !isClient(it))));
  legendOf('A client’s lane', phasesIn(lanes.filter(isClient)));
  const marks = new Set(lanes.flatMap((lane) => lane.marks.map((it) => it.what)));
  legendOf('Moments', Object.entries(MOMENTS).filter(([mark]) => marks.has(mark))
    .map(([mark, [, name]]) => [{ mark }, name, '']));
}

for (const button of all('[data-do]')) {
  button.addEventListener('click', DOES[button.dataset.do]);
}
for (const input of all('[data-switch]')) {
  input.addEventListener('change', () => {
    turn(Number(input.dataset.switch), input.checked);
    draw();
    remember();
  });
}
for (const button of all('[data-all]')) {
  button.addEventListener('click', () => {
    panels.forEach((_, at) => turn(at, button.dataset.all === 'on'));
    draw();
    remember();
  });
}

// Only what is near the window is drawn.
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const panel = panels.find((it) => it.root === target);
    panel.seen = isIntersecting;
    if (isIntersecting && panel.stale) draw();
  }
}, { rootMargin: '400px' });
for (const panel of panels) watcher.observe(panel.root);
new ResizeObserver(draw).observe(ruler);
addEventListener('hashchange', recall);
addEventListener('beforeprint', () => {
  for (const panel of panels) panel.seen = true;
  one('.legend').open = true;
  drawNow();
});

readout.textContent = 'Point at a bar, or go to it with the Tab and arrow ' +
  'keys, to read which call it is and what it means.';
legend();
// On a small screen it would push the lanes out of sight.
if (innerWidth <= 720) {
  for (const name of ['.legend', '.models']) one(name).open = false;
}
recall();
