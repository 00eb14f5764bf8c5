// The page: draws what has changed, and does what the reader asks for.

const data = unpack(JSON.parse(document.getElementById('data').textContent));
const one = (selector) => document.querySelector(selector);
const all = (selector) => [...document.querySelectorAll(selector)];

const readout = one('.readout');
const ruler = one('.ruler');
const hair = element('div', 'hair', one('main'));
hair.hidden = true;
const calm = matchMedia('(prefers-reduced-motion: reduce)');
const panels = all('.model').map((root, at) => new Panel(root, data.figures[at]));

const shown = () => panels.filter((it) => it.on);
let view = wholeScene(data);
// Where a flight ends: who asks for more on the way asks from there.
let goal = view;
// Views to go back to.
const past = [];

// ---- drawing

let asked = false;
function draw() {
  if (!asked) requestAnimationFrame(drawNow);
  asked = true;
}

function drawNow() {
  asked = false;
  const width = ruler.clientWidth;
  if (!width) return;
  const { ticks, unit } = ticksOf(view, width);
  drawAxis(ticks, unit, width);
  for (const panel of panels) {
    if (panel.on && panel.seen) panel.draw(view, width, ticks);
    else panel.stale = true;
  }
  one('.where').textContent = whereOf(view);
  for (const kind of ['scene', 'message']) {
    const pressed = view.kind === kind;
    one(`[data-do=${kind}]`).setAttribute('aria-pressed', pressed);
  }
}

function drawAxis(ticks, unit, width) {
  one('.unit').textContent = unit;
  const svg = ruler.querySelector('svg');
  svg.replaceChildren();
  svg.setAttribute('viewBox', `0 0 ${width} 24`);
  const scale = width / (view.to - view.from);
  for (const { at, label } of ticks) {
    const x = (at - view.from) * scale;
    make('path', { class: 'tick', d: `M${x.toFixed(1)} 17V24` }, svg);
    // At the ends it must not stand out.
    const half = label.length * 3.2;
    const place = Math.min(Math.max(x, half), width - half).toFixed(1);
    make('text', { class: 'label', x: place, y: 13 }, svg).textContent = label;
  }
  ruler.setAttribute('aria-label', `time axis: ${whereOf(view)}; ` +
    'arrows move along it, plus and minus zoom');
}

// ---- going somewhere

let flight = 0;
function show(next) {
  view = next;
  draw();
  remember();
}

// With a short flight, so that one sees where it is.
function go(next, mayReturn = true) {
  if (mayReturn) past.push(goal);
  goal = bounded(next, data);
  cancelAnimationFrame(flight);
  if (calm.matches || goal.kind !== view.kind) return show(goal);
  const [start, begin] = [view, performance.now()];
  const step = (now) => {
    const share = Math.min(Math.max((now - begin) / 220, 0), 1);
    show(share < 1 ? between(start, goal, share * (2 - share)) : goal);
    if (share < 1) flight = requestAnimationFrame(step);
  };
  flight = requestAnimationFrame(step);
}

function jump(next) {
  cancelAnimationFrame(flight);
  goal = bounded(next, data);
  show(goal);
}

function back() {
  const before = past.pop();
  go(before || wholeScene(data), false);
}

// Where zooming by keys and buttons leaves time in place.
function anchor() {
  const panel = focused();
  const item = panel && panel.current();
  if (!item) return 0.5;
  return Math.min(Math.max((item.x + item.w / 2) / panel.width, 0), 1);
}

const DOES = {
  scene: () => go(wholeScene(data)),
  message: () => go(oneMessage(shown().map((it) => it.figure))),
  in: () => go(zoomed(goal, 2, anchor()), false),
  out: () => go(zoomed(goal, 0.5, anchor()), false),
  left: () => go(panned(goal, -0.4), false),
  right: () => go(panned(goal, 0.4), false),
};

// The address tells what is seen, so that it can be passed on; not at every
// frame, for browsers refuse that.
let late = 0;
function remember() {
  clearTimeout(late);
  late = setTimeout(() => {
    const off = panels.filter((it) => !it.on).map((it) => it.figure.model);
    history.replaceState(null, '', asFragment(view, off));
  }, 150);
}

function recall() {
  const { view: seen, off } = fromFragment(location.hash, data);
  view = goal = seen;
  panels.forEach((panel, at) => turn(at, !off.includes(panel.figure.model)));
  draw();
}

function turn(at, on) {
  panels[at].on = on;
  panels[at].root.hidden = !on;
  one(`[data-switch="${at}"]`).checked = on;
}

// ---- telling

function read(panel, it, item) {
  readout.classList.add('told');
  fillReadout(readout, panel.figure, it.lane, item);
}

const focused = () =>
  panels.find((it) => it.cursor === document.activeElement);

function readCursor() {
  const panel = focused();
  const item = panel && panel.current();
  if (item) read(panel, panel.lane, item);
}

// Who comes to a panel by Tab finds something that is in sight.
function arrive() {
  const panel = focused();
  if (!panel || !panel.stop) return;
  if (panel.stale) drawAlso(panel);
  const item = panel.current() || nearest(panel.lane, panel.width / 2);
  if (item && item !== panel.current()) select(panel, panel.lane, item);
  else readCursor();
}

function drawAlso(panel) {
  panel.seen = true;
  drawNow();
}

function select(panel, it, item) {
  panel.moveTo(it, stopOf(item));
  read(panel, it, item);
  panel.cursor.scrollIntoView({ block: 'nearest' });
}
