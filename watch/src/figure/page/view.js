// The stretch of time that all models show. `kind` says where its zero is:
// at the beginning of the scene, or when each model's message is sent.

// Closer than this, in ns, there is nothing to be seen.
const CLOSEST = 500;

function wholeScene(data) {
  return { kind: 'scene', from: 0, to: data.span };
}

// As long as is typical of the figures: the slowest would make the others
// too small to be read.
function oneMessage(figures) {
  const lengths = figures.map(({ lens }) => lens[1] - lens[0]);
  lengths.sort((a, b) => a - b);
  const length = lengths[lengths.length >> 1] || CLOSEST;
  const from = Math.round(-0.12 * length);
  return { kind: 'message', from, to: from + length };
}

// The same stretch in the figure's own time.
function inFigure(view, figure) {
  const zero = view.kind === 'message' ? figure.sent : 0;
  return { from: view.from + zero, to: view.to + zero, zero };
}

// What one may go to: not beyond the scene, which begins earlier when zero is
// in its midst; and a message remains in view.
function bounded(view, data) {
  const isScene = view.kind === 'scene';
  const [low, high] = [isScene ? 0 : -data.span, data.span];
  const longest = Math.max(...data.figures.map(({ lens }) => lens[1] - lens[0]));
  const most = isScene ? data.span : Math.min(10 * longest, data.span);
  const length = Math.min(Math.max(view.to - view.from, CLOSEST), most);
  const middle = (view.from + view.to) / 2;
  const from = Math.min(Math.max(middle - length / 2, low), high - length);
  return { kind: view.kind, from: Math.round(from), to: Math.round(from + length) };
}

// Closer by `factor`, with the moment at `share` of the width left in place.
function zoomed(view, factor, share) {
  const length = view.to - view.from;
  const fixed = view.from + length * share;
  return {
    kind: view.kind,
    from: fixed - length * share / factor,
    to: fixed + length * (1 - share) / factor,
  };
}

// Moved on by `share` of what is seen.
function panned(view, share) {
  const by = (view.to - view.from) * share;
  return { kind: view.kind, from: view.from + by, to: view.to + by };
}

// An item with some room around it.
function around(view, figure, item) {
  const { zero } = inFigure(view, figure);
  const room = Math.max((item.to - item.from) * 0.15, CLOSEST / 2);
  return { kind: view.kind, from: item.from - zero - room, to: item.to - zero + room };
}

// Between two views; widths by ratios, or the way in would be one jump.
function between(start, end, share) {
  const [a, b] = [start.to - start.from, end.to - end.from];
  const length = a * (b / a) ** share;
  const way = Math.abs(a - b) < 1 ? share : (length - a) / (b - a);
  const from = start.from + (end.from - start.from) * way;
  return { kind: end.kind, from, to: from + length };
}

function whereOf(view) {
  const length = span(view.to - view.from);
  return view.kind === 'message' ?
    `${length} around one message of each model, sent at 0` :
    `${moment(view.from)} to ${moment(view.to)} of the scene`;
}

// As the address remembers it, with the models that are off.
function asFragment(view, off) {
  const at = `at=${view.kind}:${Math.round(view.from)}-${Math.round(view.to)}`;
  return off.length ? `#${at}&off=${off.map(encodeURIComponent).join()}` : `#${at}`;
}

function fromFragment(fragment, data) {
  const fields = new URLSearchParams(fragment.slice(1));
  const at = /^(scene|message):(-?\d+)-(-?\d+)$/.exec(fields.get('at') || '');
  const view = at && { kind: at[1], from: Number(at[2]), to: Number(at[3]) };
  return {
    view: view && view.to > view.from ? bounded(view, data) : wholeScene(data),
    off: (fields.get('off') || '').split(',').filter((name) => name),
  };
}
