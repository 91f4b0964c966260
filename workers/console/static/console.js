// What pages do beyond links and forms. Every page works without it; nothing here changes data.
(() => {
  'use strict';
  const policy = globalThis.trustedTypes?.createPolicy('console', { createHTML: (text) => text }) ?? { createHTML: (text) => text };
  const stored = (name, otherwise) => { try { return localStorage.getItem(name) ?? otherwise; } catch { return otherwise; } };
  const store = (name, value) => { try { localStorage.setItem(name, value); } catch { /* a browser without storage */ } };
  const byId = (id) => document.getElementById(id);
  const make = (name, text, attributes = {}) => {
    const made = document.createElement(name);
    made.textContent = text;
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    return made;
  };

  // Relative times.
  const span = (s) => (s < 60 ? `${Math.round(s)} s` : s < 3600 ? `${Math.floor(s / 60)} min` : s < 86400
    ? `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min` : `${Math.floor(s / 86400)} d`);
  const tell = () => document.querySelectorAll('time').forEach((time) => {
    const away = (Date.now() - Date.parse(time.dateTime)) / 1000;
    const ago = time.querySelector('.ago');
    const said = Math.abs(away) < 1 ? 'now' : away > 0 ? `${span(away)} ago` : `in ${span(-away)}`;
    if (ago && ago.textContent !== said) ago.textContent = said;
  });

  // Copying.
  const offer = () => navigator.clipboard && document.querySelectorAll('dd .id:not(.with), p .id:not(.with), .whole:not(.with)').forEach((id) => {
    id.classList.add('with');
    const button = make('button', 'Copy', { type: 'button', class: 'copy', 'aria-label': `Copy ${id.textContent.trim()}` });
    button.addEventListener('click', () => navigator.clipboard.writeText(id.querySelector('code').textContent)
      .then(() => { button.textContent = 'Copied'; }, () => { button.textContent = 'Not allowed'; }));
    id.append(button);
  });

  // Refreshing: the changing part of this very address, while nobody looks elsewhere or is busy with it.
  const seconds = [0, 5, 15, 60];
  let every = Number(stored('every', '15')), tag = '', failures = 0, shown = Date.now();
  const live = () => byId('live');
  const pace = () => every && Number(document.querySelector('[data-every]')?.dataset.every ?? every); // a job's page is faster
  const busy = () => document.hidden || document.querySelector('dialog[open]') || live().querySelector('form.act, pre:focus')
    || live().querySelector('input:checked:not([type=radio]), details[open]') || (live().contains(document.activeElement));
  const rows = (within) => new Map([...within.querySelectorAll('tr[data-key]')].map((row) => [row.dataset.key, row]));
  const replace = (next) => {
    const before = rows(live()), after = rows(next);
    const fresh = [...after.keys()].filter((key) => !before.has(key)).length;
    if (before.size && fresh) { // rows stay where the reader left them
      after.forEach((row, key) => before.get(key)?.replaceWith(row));
      byId('news').replaceChildren(`${fresh} new. `, make('a', 'Show', { href: location.href }));
    } else {
      live().replaceWith(next);
      byId('news').textContent = '';
    }
  };
  const refresh = async (asked) => {
    shown = Date.now();
    if (!live() || !byId('every') || (!asked && busy())) return;
    try {
      const answer = await fetch(location.href, { headers: { Accept: 'text/html; fragment', 'If-None-Match': tag }, redirect: 'error' });
      if (answer.status !== 304 && !answer.ok) throw new Error(`${answer.status}`);
      failures = 0;
      byId('asof').textContent = `As of ${new Date(answer.headers.get('date')).toISOString().slice(0, 19).replace('T', ' ')} UTC.`;
      if (answer.status === 304) return;
      tag = answer.headers.get('etag') ?? '';
      const parsed = new DOMParser().parseFromString(policy.createHTML(await answer.text()), 'text/html');
      if (!asked && busy()) return;
      replace(document.adoptNode(parsed.getElementById('live')));
      tell(); offer();
    } catch (error) {
      failures = Math.min(failures + 1, 5);
      byId('asof').textContent = `Not refreshed: ${error.message}.`;
    }
  };
  const choose = () => {
    const place = byId('every');
    if (!place || !live() || document.body.querySelector('form.act')) return;
    const list = make('select', '', { id: 'seconds' });
    seconds.forEach((each) => list.append(make('option', each ? `every ${each} s` : 'by hand', { value: each })));
    list.value = String(every);
    list.addEventListener('change', () => { every = Number(list.value); store('every', list.value); shown = Date.now(); });
    place.append(make('label', 'Refreshed ', { for: 'seconds' }), list);
    setInterval(() => { if (pace() && Date.now() >= shown + pace() * 1000 * 2 ** failures) refresh(false); }, 1000);
  };

  // Keys. None of them changes data; `?` lists them, and turns them off.
  const KEYS = { '/': 'search', j: 'next row', k: 'row before', x: 'tick the row', Enter: 'open the row', r: 'refresh', 'g o': 'overview',
    'g e': 'events', 'g l': 'deliveries', 'g d': 'dead letters', 'g n': 'endpoints', '?': 'these keys' };
  const PLACES = { o: 'Overview', e: 'Events', l: 'Deliveries', d: 'Dead letters', n: 'Endpoints' };
  let going = false;
  const move = (by) => {
    const list = [...document.querySelectorAll('#main tbody tr')];
    const at = list.findIndex((row) => row.classList.contains('current'));
    const next = list[Math.max(0, Math.min(list.length - 1, at + by))];
    list[at]?.classList.remove('current');
    next?.classList.add('current');
    next?.scrollIntoView({ block: 'nearest' });
  };
  const help = () => {
    let box = byId('keys');
    if (!box) {
      box = make('dialog', '', { id: 'keys', 'aria-labelledby': 'keys-title' });
      box.append(make('h2', 'Keys', { id: 'keys-title' }));
      const list = make('dl', '', { class: 'facts' });
      Object.entries(KEYS).forEach(([key, does]) => { const row = make('div', ''); const name = make('dt', ''); name.append(make('kbd', key)); row.append(name, make('dd', does)); list.append(row); });
      const turn = make('button', '', { type: 'button' });
      const say = () => { turn.textContent = stored('keys', 'on') === 'on' ? 'Turn keys off' : 'Turn keys on'; };
      turn.addEventListener('click', () => { store('keys', stored('keys', 'on') === 'on' ? 'off' : 'on'); say(); });
      const close = make('button', 'Close', { type: 'button' });
      close.addEventListener('click', () => box.close());
      const buttons = make('p', '', { class: 'buttons' });
      buttons.append(close, turn);
      say();
      box.append(list, buttons);
      document.body.append(box);
    }
    box.showModal();
  };
  const press = (key) => {
    const row = document.querySelector('#main tr.current');
    if (key === '/') (byId('q') ?? byId('find'))?.focus();
    else if (key === 'j' || key === 'k') move(key === 'j' ? 1 : -1);
    else if (key === 'x') row?.querySelector('input[type=checkbox]')?.click();
    else if (key === 'Enter') (row?.querySelector('a[data-open]') ?? row?.querySelector('a'))?.click();
    else if (key === 'r') refresh(true);
    else if (key === 'g') { going = true; setTimeout(() => { going = false; }, 1500); }
    else return false;
    return true;
  };
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.('input, textarea, select, dialog')) return;
    if (stored('keys', 'on') !== 'on') return;
    if (event.key === '?') help();
    else if (going && PLACES[event.key]) [...document.querySelectorAll('.rail .places a')].find((a) => a.textContent === PLACES[event.key])?.click();
    else if (event.key === 'Enter' && event.target.closest?.('a, button, summary')) return;
    else if (!press(event.key)) return;
    event.preventDefault();
  });

  const keys = make('button', 'Keys', { type: 'button', class: 'plain' });
  keys.addEventListener('click', help);
  byId('every')?.after(keys);
  if (byId('every')) byId('every').hidden = false;
  tell(); offer(); choose();
  setInterval(tell, 10000);
})();
