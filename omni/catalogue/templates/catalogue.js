"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tables = new Map(data.tables.map((t) => [t.name, t]));
  const metrics = new Map(data.metrics.map((m) => [m.table, m]));
  const byId = (id) => document.getElementById(id);
  const list = byId("list"), main = byId("main"), search = byId("search");
  byId("title").textContent = data.title;

  // Edges between columns, both ways, and between tables.
  const below = new Map(), children = new Map();
  for (const t of data.tables) {
    for (const parent of t.reads) push(children, parent, t.name);
    for (const c of t.columns) for (const [origin, through] of c.above) push(below, origin, [`${t.name}.${c.name}`, through]);
  }
  function push(map, key, value) { if (!map.has(key)) map.set(key, []); map.get(key).push(value); }

  function make(tag, attributes = {}, ...inside) {
    const svg = ["svg", "g", "rect", "text", "path", "title"].includes(tag);
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
      else if (value !== undefined && value !== false) node.setAttribute(name, value);
    }
    for (const one of inside.flat()) if (one !== undefined && one !== null && one !== "") node.append(one);
    return node;
  }
  const link = (table, text) => make("a", { href: `#${table}` }, text || table);
  const pill = (text, tone = "") => make("span", { class: `pill ${tone}` }, text);

  // Search: every word must be found somewhere in what is known of a table.
  const known = new Map(data.tables.map((t) => {
    const metric = metrics.get(t.name);
    const words = [t.name, t.kind, t.owner, t.text, t.source, ...t.columns.map((c) => `${c.name} ${c.text} ${c.personal ? "personal " + c.personal.category : ""}`),
      ...t.uses.map((u) => `${u.kind} ${u.name}`), ...(metric ? [metric.title, metric.text, ...metric.also] : [])];
    return [t.name, words.join(" ").toLowerCase()];
  }));
  function found(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const hit = (t) => (t.name.includes(words[0] || "") ? 0 : t.columns.some((c) => c.name.includes(words[0] || "")) ? 1 : 2);
    const kept = data.tables.filter((t) => words.every((w) => known.get(t.name).includes(w)));
    return words.length ? kept.sort((a, b) => hit(a) - hit(b)) : kept;
  }

  const latest = (check) => check.results[check.results.length - 1];
  function worst(t) {
    const failing = t.checks.map(latest).filter((r) => r && !r.passed);
    return failing.some((r) => r.severity === "error") ? "bad" : failing.length ? "warn" : "";
  }

  function drawList() {
    const text = search.value.trim(), shown = found(text);
    list.replaceChildren();
    if (!shown.length) list.append(make("p", { class: "none" }, `Nothing is called or described as “${text}”.`));
    let group = null;
    for (const t of shown) {
      const schema = t.name.split(".")[0];
      if (schema !== group && !text) list.append(make("h2", {}, group = schema));
      const columns = text ? t.columns.filter((c) => text.toLowerCase().split(/\s+/).some((w) => w && c.name.includes(w))).slice(0, 4) : [];
      const tone = worst(t), metric = metrics.get(t.name);
      list.append(make("a", { href: `#${t.name}`, "aria-current": t.name === here ? "page" : undefined },
        tone ? make("span", { class: `dot ${tone}`, title: "a check fails" }) : null,
        text ? t.name : t.name.slice(schema.length + 1),
        metric ? make("small", {}, metric.title) : null,
        columns.length ? make("small", {}, columns.map((c) => c.name).join(", ")) : null));
    }
  }

  function facts(t) {
    const s = t.state, rows = [];
    const add = (name, value) => value !== undefined && value !== null && value !== "" && rows.push(make("div", {}, make("dt", {}, name), make("dd", {}, value)));
    add("One row is", t.grain);
    add("Owner", t.owner);
    add("Comes from", t.source);
    add("Rows", s.rows === undefined ? undefined : Number(s.rows).toLocaleString("en"));
    add("Rows last changed", s.changed && `${s.changed} UTC`);
    add("Last built", s.built && `${s.built} UTC${s.seconds !== null && s.seconds !== undefined ? `, ${s.seconds.toFixed(2)} s` : ""}`);
    add("Why it was built", s.reason);
    add("Should be fresh within", t.freshness_hours && `${t.freshness_hours} h`);
    add("Kept for", t.retention);
    if (!data.as_of) add("Built", "nothing is published yet");
    return make("dl", {}, rows);
  }

  function columnRows(t, pick) {
    return t.columns.map((c) => {
      const from = c.above.slice(0, 6).map(([origin, through], i) => {
        const cut = origin.lastIndexOf(".");
        return [i ? ", " : "", link(origin.slice(0, cut), origin), through === "copied" ? "" : through === "computed" ? " (computed)" : " (perhaps)"];
      });
      const mark = c.personal && pill(`personal: ${c.personal.category}${c.personal.through === "computed" ? ", computed" : `, ${c.personal.protect}`}`, c.personal.protect === "clear" ? "bad" : "warn");
      return make("tr", { "data-column": c.name },
        make("th", { scope: "row" }, make("button", { class: "pick", type: "button", on: { click: () => pick(c.name) } }, c.name)),
        make("td", { class: "type" }, c.type),
        make("td", {}, c.text, c.text_from ? make("small", {}, ` (as in ${c.text_from})`) : null, c.text && mark ? " " : null, mark),
        make("td", {}, make("small", {}, c.field || from.flat(2), c.above.length > 6 ? ` … and ${c.above.length - 6} more` : null)));
    });
  }

  function spark(results) {
    const svg = make("svg", { class: "spark", viewBox: "0 0 120 20", role: "img", "aria-label": `the last ${results.length} results` });
    const most = Math.max(...results.map((r) => (r.rows ? r.failing / r.rows : 0)), 1e-9);
    results.forEach((r, i) => {
      const rate = r.rows ? r.failing / r.rows : 0, high = r.failing ? 5 + 15 * rate / most : 3;
      svg.append(make("rect", { x: i * 4, y: 20 - high, width: 3, height: high, class: r.passed ? "" : r.severity === "error" ? "bad" : "warn" },
        make("title", {}, `${r.at}: ${r.failing} of ${r.rows} rows fail`)));
    });
    return svg;
  }

  function checkTable(t) {
    return make("div", { class: "scroll" }, make("table", {},
      make("thead", {}, make("tr", {}, ["check", "now", "failing rows", "history"].map((h) => make("th", {}, h)))),
      make("tbody", {}, t.checks.map((check) => {
        const r = latest(check);
        return make("tr", {}, make("th", { scope: "row" }, check.name),
          make("td", {}, r ? pill(r.passed ? "passes" : r.severity === "error" ? "fails" : "warns", r.passed ? "good" : r.severity === "error" ? "bad" : "warn") : pill("not run")),
          make("td", {}, r ? `${r.failing.toLocaleString("en")} of ${r.rows.toLocaleString("en")}` : "–"),
          make("td", {}, r ? spark(check.results) : ""));
      }))));
  }

  // The graph: the table's parents to its left, its readers to its right, in layers of the DAG.
  function around(name) {
    const reached = new Map([[name, 0]]);
    const walk = (start, next, sign) => {
      let layer = [start], depth = 0;
      while (layer.length) {
        depth += sign;
        const more = [];
        for (const one of layer) for (const other of next(one)) if (tables.has(other) && !reached.has(other)) { reached.set(other, depth); more.push(other); }
        layer = more;
      }
    };
    walk(name, (n) => tables.get(n).reads, -1);
    walk(name, (n) => children.get(n) || [], 1);
    return reached;
  }

  function layers(names) {
    const depth = new Map();
    const of = (n) => {
      if (depth.has(n)) return depth.get(n);
      depth.set(n, 0);
      const parents = tables.get(n).reads.filter((p) => names.has(p));
      const found = parents.length ? 1 + Math.max(...parents.map(of)) : 0;
      depth.set(n, found);
      return found;
    };
    names.forEach((_, n) => of(n));
    const rows = [];
    [...depth].sort(([a], [b]) => (a < b ? -1 : 1)).forEach(([n, d]) => (rows[d] = rows[d] || []).push(n));
    const place = new Map();
    const note = () => rows.forEach((row) => row.forEach((n, i) => place.set(n, i / row.length)));
    note();
    const mean = (n, near) => { const p = near.filter((m) => place.has(m)).map((m) => place.get(m)); return p.length ? p.reduce((a, b) => a + b) / p.length : place.get(n); };
    for (let turn = 0; turn < 4; turn++) {
      const forth = turn % 2 === 0;
      for (const row of forth ? rows : [...rows].reverse()) {
        const keys = new Map(row.map((n) => [n, mean(n, forth ? tables.get(n).reads : children.get(n) || [])]));
        row.sort((a, b) => keys.get(a) - keys.get(b));
        note();
      }
    }
    return rows;
  }

  /** Columns reached from one, up and down: by table, and the edges between them. */
  function traced(start) {
    const columns = new Set([start]), edges = new Set();
    const up = (id) => {
      const cut = id.lastIndexOf("."), t = tables.get(id.slice(0, cut));
      const c = t && t.columns.find((one) => one.name === id.slice(cut + 1));
      for (const [origin] of c ? c.above : []) { edges.add(`${origin}>${id}`); if (!columns.has(origin)) { columns.add(origin); up(origin); } }
    };
    const seen = new Set();
    const down = (id) => { for (const [other] of below.get(id) || []) { edges.add(`${id}>${other}`); columns.add(other); if (!seen.has(other)) { seen.add(other); down(other); } } };
    up(start);
    down(start);
    return { columns, edges };
  }

  const narrow = window.innerWidth <= 820;
  const WIDTH = narrow ? 150 : 215, GAP = narrow ? 44 : 66, LINE = 17, LETTERS = Math.floor((WIDTH - 16) / 7.2);
  function graph(name, column) {
    const trail = column && traced(`${name}.${column}`);
    let names = around(name);
    if (trail) {
      const kept = new Set([...trail.columns].map((id) => id.slice(0, id.lastIndexOf("."))));
      names = new Map([...names].filter(([n]) => kept.has(n)));
    }
    const rows = layers(names), at = new Map();
    const shown = (n) => trail ? [...trail.columns].filter((id) => id.slice(0, id.lastIndexOf(".")) === n).map((id) => id.slice(id.lastIndexOf(".") + 1)).slice(0, 12) : [];
    const tall = (n) => 28 + shown(n).length * LINE + (shown(n).length ? 6 : 0);
    const heights = rows.map((row) => row.reduce((sum, n) => sum + tall(n) + 12, 0));
    const height = Math.max(...heights) + 20;
    rows.forEach((row, d) => {
      let y = (height - heights[d]) / 2 + 6;
      for (const n of row) { at.set(n, { x: 14 + d * (WIDTH + GAP), y }); y += tall(n) + 12; }
    });
    const width = rows.length * (WIDTH + GAP) - GAP + 28;
    const svg = make("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `what ${name} is made of and who reads it`, class: trail ? "picked" : "" });
    const bend = (x1, y1, x2, y2) => `M${x1},${y1}C${x1 + GAP / 2},${y1} ${x2 - GAP / 2},${y2} ${x2},${y2}`;
    for (const [n] of names) for (const parent of tables.get(n).reads) if (names.has(parent)) {
      const a = at.get(parent), b = at.get(n);
      svg.append(make("path", { d: bend(a.x + WIDTH, a.y + 14, b.x, b.y + 14), "data-edge": `${parent}>${n}`, class: !trail && (parent === name || n === name) ? "on" : "" }));
    }
    if (trail) for (const edge of trail.edges) {
      const [from, to] = edge.split(">").map((id) => { const cut = id.lastIndexOf("."); return [id.slice(0, cut), id.slice(cut + 1)]; });
      if (!at.has(from[0]) || !at.has(to[0])) continue;
      const spot = ([t, c]) => at.get(t).y + 28 + LINE * Math.max(0, shown(t).indexOf(c)) + 5;
      svg.append(make("path", { class: "on", d: bend(at.get(from[0]).x + WIDTH, spot(from), at.get(to[0]).x, spot(to)) }));
    }
    for (const [n] of names) {
      const { x, y } = at.get(n), label = n.length > LETTERS ? `${n.slice(0, LETTERS - 1)}…` : n;
      svg.append(make("g", { class: `node ${n === name ? "here" : ""}`, tabindex: 0, role: "link", on: { click: () => { location.hash = n; }, keydown: (e) => { if (e.key === "Enter") location.hash = n; } } },
        make("title", {}, n), make("rect", { x, y, width: WIDTH, height: tall(n) }), make("text", { x: x + 10, y: y + 19, class: "name" }, label),
        shown(n).map((c, i) => make("text", { x: x + 16, y: y + 28 + LINE * i + 9, class: `col ${n === name && c === column ? "on" : ""}` }, c))));
    }
    return { svg, x: at.get(name).x, y: at.get(name).y, count: names.size };
  }

  let here = null;
  function drawTable(name, column) {
    const t = tables.get(name), metric = metrics.get(name);
    const box = make("div", { class: "graph", tabindex: 0, "aria-label": "lineage" }), told = make("p", { class: "note" });
    const draw = (chosen) => {
      const { svg, x, y, count } = graph(name, chosen);
      box.replaceChildren(svg);
      requestAnimationFrame(() => { box.scrollLeft = Math.max(0, x - box.clientWidth / 2 + WIDTH / 2); box.scrollTop = Math.max(0, y - box.clientHeight / 2); });
      told.textContent = chosen ? `What ${chosen} is made of and what is made of it. Choose it again for all ${around(name).size} tables.` : count > 1 ? "Choose a column below to follow it; choose a table to go there." : "It stands alone.";
      main.querySelectorAll("[data-column]").forEach((row) => row.classList.toggle("on", row.dataset.column === chosen));
      current = chosen;
    };
    let current;
    const pick = (chosen) => draw(chosen === current ? undefined : chosen);
    const rows = columnRows(t, pick);
    const personal = t.columns.filter((c) => c.personal).length;
    main.replaceChildren(
      make("a", { class: "back", href: "#" }, "← All tables"),
      make("section", { class: "card" }, make("h2", { class: "title" }, t.name), make("p", {}, pill(t.kind, "accent"), " ", personal ? pill(`${personal} personal columns`, "warn") : null, " ",
        worst(t) ? pill("a check fails", worst(t)) : null), metric ? make("p", { class: "lead" }, make("b", {}, metric.title), ` (${metric.unit})`) : null, make("p", { class: "lead" }, t.text), facts(t)),
      make("section", { class: "card" }, make("h3", {}, "Lineage"), box, told),
      make("section", { class: "card" }, make("h3", {}, `${t.columns.length} columns`), make("table", { class: "columns" },
        make("thead", {}, make("tr", {}, ["column", "type", "what it is", "made of"].map((h) => make("th", {}, h)))), make("tbody", {}, rows))),
      t.checks.length ? make("section", { class: "card" }, make("h3", {}, `${t.checks.length} checks`), checkTable(t)) : "",
      t.uses.length ? make("section", { class: "card" }, make("h3", {}, "Used by"), make("div", { class: "scroll" }, make("table", {}, make("tbody", {}, t.uses.map((u) =>
        make("tr", {}, make("th", { scope: "row" }, u.kind === "metric" && tables.has(`metrics.${u.name}`) ? link(`metrics.${u.name}`, u.name) : tables.has(u.name) ? link(u.name) : u.name), make("td", {}, u.kind), make("td", {}, u.columns === "*" ? "all columns" : u.columns))))))) : "",
      t.sql ? make("section", { class: "card" }, make("details", {}, make("summary", {}, "SQL"), make("pre", {}, t.sql))) : "");
    draw(column);
  }

  function drawStart() {
    const failing = data.tables.filter((t) => worst(t));
    const count = (test) => data.tables.filter(test).length;
    main.replaceChildren(make("section", { class: "card" }, make("h2", {}, "What there is"),
      make("p", { class: "lead" }, `${data.tables.length} tables: ${count((t) => t.kind === "loaded")} loaded from sources, ${count((t) => t.name.startsWith("core."))} in core, ${count((t) => t.name.startsWith("marts."))} marts; ${data.metrics.length} metrics. ${data.as_of ? `Newest build: ${data.as_of} UTC.` : "Nothing is published yet, so rows and check results are missing."}`),
      make("p", { class: failing.length ? "" : "note" }, failing.length ? ["Checks fail in ", failing.map((t, i) => [i ? ", " : "", link(t.name)])].flat(3) : data.as_of ? "No check fails." : "")),
      make("section", { class: "card" }, make("h3", {}, "Metrics"), make("div", { class: "scroll" }, make("table", {}, make("tbody", {}, data.metrics.map((m) =>
        make("tr", {}, make("th", { scope: "row" }, tables.has(m.table) ? link(m.table, m.title) : m.title), make("td", {}, m.text))))))));
  }

  function go() {
    const wanted = decodeURIComponent(location.hash.slice(1));
    const parts = wanted.split("."), name = parts.slice(0, 2).join(".");
    here = tables.has(name) ? name : null;
    document.body.classList.toggle("detail", Boolean(here));
    if (here) drawTable(name, parts[2]); else drawStart();
    document.title = here ? `${here} · ${data.title}` : `Catalogue of ${data.title}`;
    drawList();
    const current = list.querySelector("[aria-current]");
    if (current && window.innerWidth > 820) current.scrollIntoView({ block: "nearest" });
    window.scrollTo(0, 0);
  }
  search.addEventListener("input", drawList);
  window.addEventListener("hashchange", go);
  go();
  window.__ready = true;
})();
