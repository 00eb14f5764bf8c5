// Times in nanoseconds, as people read them.

const UNITS = [[1e9, 's'], [1e6, 'ms'], [1e3, 'µs'], [1, 'ns']];

// The unit in which a time of this size is told.
function unitOf(time) {
  return UNITS.find(([size]) => Math.abs(time) >= size) || UNITS[3];
}

// Three digits and a unit.
function span(time) {
  const [size, unit] = unitOf(time);
  const number = time / size;
  const digits = number >= 100 || size === 1 ? 0 : number >= 10 ? 1 : 2;
  return `${number.toFixed(digits)} ${unit}`;
}

// A moment, in ms, so exactly that two calls are told apart.
function moment(time) {
  return `${(time / 1e6).toFixed(3)} ms`;
}

// 1, 2 or 5 times a power of ten, and not below `least`.
function roundStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((it) => it * power).find((it) => it >= least);
}

// The times at which the axis is labelled, with their labels and their unit.
function ticksOf(view, width) {
  const length = view.to - view.from;
  const step = Math.max(roundStep(length * 84 / width), 1);
  const [size, unit] =
    unitOf(Math.max(Math.abs(view.from), Math.abs(view.to)) * 0.999);
  const digits = Math.max(0, Math.ceil(-Math.log10(step / size) - 1e-9));
  const ticks = [];
  for (let at = Math.ceil(view.from / step) * step; at <= view.to; at += step) {
    ticks.push({ at, label: (at / size).toFixed(digits) });
  }
  return { ticks, unit };
}

function counted(number) {
  return Math.round(number).toLocaleString('en');
}

function percent(share) {
  return share < 0.005 ? 'less than 1 %' : `${Math.round(100 * share)} %`;
}
