// The pointer: points, drags, spreads, and selects on the axis.

function panelAt(event) {
  const strips = event.target.closest && event.target.closest('.strips');
  const panel = strips && panels.find((it) => it.strips === strips);
  if (!panel) return null;
  const { left, top } = strips.getBoundingClientRect();
  const [x, y] = [event.clientX - left, event.clientY - top];
  return { panel, x, y, found: panel.at(x, y) };
}

function hover(event) {
  const over = panelAt(event);
  for (const panel of panels) {
    panel.bringFore(over && over.panel === panel ? over.found : null);
  }
  hair.hidden = !over;
  if (!over) return readCursor();
  hair.style.setProperty('--x', `${over.x}px`);
  if (over.found) read(over.panel, over.found.it, over.found.item);
}

// Pointers that are down, by their number: one drags, two spread.
const down = new Map();
let dragged = 0;

function spread() {
  const [a, b] = [...down.values()];
  return { apart: Math.max(Math.abs(a.x - b.x), 20), middle: (a.x + b.x) / 2 };
}

// A drag takes time with it; two fingers also take it apart.
function drag(event) {
  const before = down.size === 2 ? spread() : null;
  const pointer = down.get(event.pointerId);
  const by = event.clientX - pointer.x;
  pointer.x = event.clientX;
  dragged += Math.abs(by);
  const width = ruler.clientWidth;
  if (!before) return dragged > 4 && jump(panned(view, -by / width));
  const after = spread();
  const share = (after.middle - ruler.getBoundingClientRect().left) / width;
  jump(zoomed(view, after.apart / before.apart, share));
}

function press(event) {
  const over = panelAt(event);
  if (!over || event.button !== 0) return;
  down.set(event.pointerId, { x: event.clientX });
  if (down.size === 1) dragged = 0;
}

function release(event) {
  const wasDown = down.delete(event.pointerId);
  const over = wasDown && dragged <= 4 && panelAt(event);
  if (over && over.found) select(over.panel, over.found.it, over.found.item);
}

function enter(panel, it, item) {
  const isMark = item.mark !== undefined;
  const length = (view.to - view.from) / 8;
  const near = isMark ? { from: item.from - length, to: item.to + length } : item;
  go(around(view, panel.figure, near));
}

const main = one('main');
main.addEventListener('pointermove', (event) => {
  if (down.has(event.pointerId)) drag(event);
  else hover(event);
});
main.addEventListener('pointerleave', hover);
main.addEventListener('pointerdown', press);
addEventListener('pointerup', release);
addEventListener('pointercancel', (event) => down.delete(event.pointerId));
main.addEventListener('dblclick', (event) => {
  const over = panelAt(event);
  if (over && over.found) enter(over.panel, over.found.it, over.found.item);
});
// Of the cursor: Enter and Space are its click; a pointer's has a detail.
main.addEventListener('click', (event) => {
  const panel = panels.find((it) => it.cursor === event.target);
  const item = panel && event.detail === 0 && panel.current();
  if (item) enter(panel, panel.lane, item);
});

function wheel(event) {
  const onAxis = ruler.contains(event.target);
  const isZoom = event.ctrlKey || (onAxis && !event.deltaX && !event.shiftKey);
  const along = event.deltaX || (event.shiftKey ? event.deltaY : 0);
  if (!isZoom && !along) return;
  event.preventDefault();
  const { left, width } = ruler.getBoundingClientRect();
  const share = Math.min(Math.max((event.clientX - left) / width, 0), 1);
  jump(isZoom ? zoomed(view, 1.002 ** -event.deltaY, share) :
    panned(view, along / width));
}
for (const place of [main, ruler]) {
  place.addEventListener('wheel', wheel, { passive: false });
}

// ---- a stretch of the axis

const chosen = element('div', 'chosen', ruler);
chosen.hidden = true;
let begun = null;

function shareOf(event) {
  const { left, width } = ruler.getBoundingClientRect();
  return Math.min(Math.max((event.clientX - left) / width, 0), 1);
}

ruler.addEventListener('pointerdown', (event) => {
  begun = shareOf(event);
  ruler.setPointerCapture(event.pointerId);
});
ruler.addEventListener('pointermove', (event) => {
  if (begun === null) return;
  const [low, high] = [begun, shareOf(event)].sort((a, b) => a - b);
  chosen.hidden = false;
  chosen.style.left = `${100 * low}%`;
  chosen.style.width = `${100 * (high - low)}%`;
});
ruler.addEventListener('pointerup', (event) => {
  const [low, high] = [begun, shareOf(event)].sort((a, b) => a - b);
  begun = null;
  chosen.hidden = true;
  const at = (share) => view.from + (view.to - view.from) * share;
  const isWide = (high - low) * ruler.clientWidth > 6;
  if (isWide) go({ kind: view.kind, from: at(low), to: at(high) });
});
