// The keyboard: from bar to bar, and everything that a button does.

function moveAlong(panel, step) {
  const stop = panel.stop && nextStop(panel.lane, panel.stop, step);
  if (!stop) return;
  if (!itemOf(panel.lane.laid, stop)) showStop(panel, stop, step);
  const item = itemOf(panel.lane.laid, stop);
  if (item) select(panel, panel.lane, item);
}

// Moves on so that a stop outside is seen.
function showStop(panel, stop, step) {
  const { zero } = inFigure(view, panel.figure);
  const { bars, marks } = panel.lane.lane;
  const bar = bars[stop.bar];
  const at = bar ? (step > 0 ? bar.from : bar.to) : marks[stop.mark].at;
  const length = view.to - view.from;
  const from = at - zero - length * (step > 0 ? 0.3 : 0.7);
  jump({ kind: view.kind, from, to: from + length });
  drawNow();
}

function moveAcross(panel, step) {
  const item = panel.current();
  const x = item ? item.x + item.w / 2 : panel.width / 2;
  const lanes = shown()
    .flatMap((owner) => owner.lanes.map((it) => ({ owner, it })));
  let at = lanes.findIndex(({ it }) => it === panel.lane) + step;
  for (; lanes[at]; at += step) {
    const { owner, it } = lanes[at];
    if (owner.stale) drawAlso(owner);
    const found = nearest(it, x);
    if (found) return select(owner, it, found);
  }
}

function toEnd(panel, step) {
  const { laid } = panel.lane;
  const item = nearest({ laid }, step < 0 ? -1e9 : 1e9);
  if (item) select(panel, panel.lane, item);
}

// Keys on a bar.
const STEPS = {
  ArrowLeft: (panel) => moveAlong(panel, -1),
  ArrowRight: (panel) => moveAlong(panel, 1),
  ArrowUp: (panel) => moveAcross(panel, -1),
  ArrowDown: (panel) => moveAcross(panel, 1),
  Home: (panel) => toEnd(panel, -1),
  End: (panel) => toEnd(panel, 1),
};

// Keys everywhere.
const KEYS = {
  '+': DOES.in, '=': DOES.in, '-': DOES.out, '_': DOES.out, '−': DOES.out,
  'Escape': back, 'w': DOES.scene, 'm': DOES.message,
};
const PANS = { ArrowLeft: DOES.left, ArrowRight: DOES.right };

function whatKeyDoes(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return null;
  const panel = panels.find((it) => it.cursor === event.target);
  if (PANS[event.key] && (event.shiftKey || event.target === ruler)) {
    return PANS[event.key];
  }
  if (panel && STEPS[event.key]) return () => STEPS[event.key](panel);
  return KEYS[event.key];
}

document.addEventListener('keydown', (event) => {
  const act = whatKeyDoes(event);
  if (!act) return;
  event.preventDefault();
  act();
});

document.addEventListener('focusin', arrive);
