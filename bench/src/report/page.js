(function () {
  'use strict';
  const each = (selector, act) =>
    document.querySelectorAll(selector).forEach(act);

  // Everything of a server: its marks, its rows, its place in the legend.
  const of = new Map();
  each('[data-series]', (element) => {
    const number = element.dataset.series;
    if (!of.has(number)) of.set(number, []);
    of.get(number).push(element);
  });

  function turn(input) {
    for (const element of of.get(input.dataset.switch)) {
      if (element.tagName !== 'LABEL') {
        element.classList.toggle('off', !input.checked);
      }
    }
  }
  each('[data-switch]', (input) => {
    input.addEventListener('change', () => turn(input));
    // A browser remembers how they stood before a reload.
    turn(input);
  });
  each('[data-all]', (button) => {
    button.addEventListener('click', () => {
      each('[data-switch]', (input) => {
        input.checked = button.dataset.all === 'on';
        turn(input);
      });
    });
  });

  // Whoever the pointer or the focus rests on comes forward everywhere.
  let fore = null;
  function bring(target) {
    const found = target && target.closest && target.closest('[data-series]');
    const number = found ? found.dataset.series : null;
    if (number === fore) return;
    if (fore !== null) {
      of.get(fore).forEach((element) => element.classList.remove('fore'));
    }
    fore = number;
    document.body.classList.toggle('looking', fore !== null);
    if (fore !== null) {
      of.get(fore).forEach((element) => element.classList.add('fore'));
    }
  }
  document.addEventListener('pointerover', (event) => bring(event.target));
  document.addEventListener('pointerleave', () => bring(null));
  document.addEventListener('focusin', (event) => bring(event.target));
  document.addEventListener('focusout', () => bring(null));

  each('[data-save]', (button) => {
    button.hidden = false;
    button.addEventListener('click', () => {
      const text = document.getElementById('comparison').textContent;
      const link = document.createElement('a');
      const file = new Blob([text], { type: 'application/json' });
      link.href = URL.createObjectURL(file);
      link.download = button.dataset.save;
      link.click();
      URL.revokeObjectURL(link.href);
    });
  });
})();
