// What the reader is told of an item, as lines of words.

// Bytes of a stream: `bytes 64–127 of the stream`.
function streamOf(call) {
  if (!call.bytes) return '';
  const [first, behind] = call.bytes;
  return behind === first ? '' :
    `bytes ${counted(first)} to ${counted(behind - 1)} of the stream`;
}

function list(...parts) {
  return parts.filter((part) => part).join(' · ');
}

function tellShares(shares) {
  return shares.filter(([, share]) => share > 0)
    .map(([phase, share]) => `${PHASES[phase][0]} ${percent(share)}`).join(', ');
}

function tellCall(call, bar) {
  const [length, all] = [bar.to - bar.from, call.to - call.from];
  const whole = length === all ? '' : `of ${span(all)} in the call`;
  return {
    call: call.call,
    result: call.result,
    facts: list(call.about && `about ${call.about}`,
      `${span(length)} ${whole}`.trim(), `from ${moment(bar.from)}`,
      streamOf(call)),
    why: call.why,
  };
}

function tellDense({ rounds, calls, wasted, shares }, bar) {
  return {
    call: `${counted(rounds)} rounds that repeat`,
    result: `${counted(calls)} calls, ${counted(wasted)} for nothing`,
    facts: list(span(bar.to - bar.from), `from ${moment(bar.from)}`),
    why: `Of the time: ${tellShares(shares)}.`,
  };
}

function tellMany(lane, item) {
  const count = item.last - item.first + 1;
  return {
    phase: sharesOf(lane.bars, item)[0][0],
    name: 'closer together than a pixel',
    call: `${counted(count)} bars`,
    result: '',
    facts: list(span(item.to - item.from), `from ${moment(item.from)}`),
    why: `Of the time: ${tellShares(sharesOf(lane.bars, item))}. ` +
      'Enter or a double click zooms in.',
  };
}

function tellBar(figure, lane, at) {
  const bar = lane.bars[at];
  const [name, meaning] = PHASES[bar.phase];
  const call = figure.calls[bar.call];
  const told = bar.dense ? tellDense(bar.dense, bar) : call && tellCall(call, bar);
  return Object.assign({
    phase: bar.phase, name, call: '', result: '',
    facts: list(span(bar.to - bar.from), `from ${moment(bar.from)}`),
    why: `${meaning[0].toUpperCase()}${meaning.slice(1)}.`,
  }, told);
}

function tellMark(figure, lane, item) {
  const mark = lane.marks[item.mark];
  const call = figure.calls[mark.call];
  const more = item.lastMark - item.mark;
  return {
    mark: mark.what,
    name: MOMENTS[mark.what][1],
    call: mark.text,
    result: call ? call.result : '',
    facts: list(call && call.about && `about ${call.about}`,
      `at ${moment(mark.at)}`,
      more > 0 && `${counted(more)} more beside it, too close to be seen`),
    why: call ? call.why : '',
  };
}

function tell(figure, lane, item) {
  if (item.mark !== undefined) return tellMark(figure, lane, item);
  if (item.last > item.first) return tellMany(lane, item);
  return tellBar(figure, lane, item.first);
}

// The same for a listener, in one breath; the rest is its description.
function inOneBreath(figure, lane, item) {
  const { name, call, result, facts } = tell(figure, lane, item);
  return list(`${figure.model}, ${lane.name}`, name, call, result, facts);
}

function fillReadout(readout, figure, lane, item) {
  const told = tell(figure, lane, item);
  const part = (name, text) => {
    const element = document.createElement('span');
    element.className = name;
    element.textContent = text;
    return element;
  };
  const head = document.createElement('p');
  head.className = 'head';
  head.append(swatch(told), part('phase', told.name), part('call', told.call),
    part('result', told.result && `→ ${told.result}`),
    part('whose', `${figure.model} · ${lane.name}`));
  const facts = document.createElement('p');
  facts.className = 'facts';
  facts.textContent = told.facts;
  const why = document.createElement('p');
  why.className = 'why';
  why.textContent = told.why;
  readout.replaceChildren(head, facts, why);
}

// A phase or a mark in small.
function swatch({ phase, mark }) {
  const size = { viewBox: '0 0 22 14', class: 'swatch', 'aria-hidden': 'true' };
  const svg = make('svg', size);
  if (mark) {
    const transform = 'translate(11 7)scale(1.2)';
    make('path', { class: `mark ${mark}`, d: MOMENTS[mark][0], transform }, svg);
  } else {
    const [y, thick] = thickness(phase, { top: 0.5, thick: 13 });
    make('path', { class: phase, d: box(0.5, y, 21, thick) }, svg);
  }
  return svg;
}
