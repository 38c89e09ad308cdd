// Draws every chart of the page from its specification, in the colours of the reader's theme.
const { charts, palettes, config, locale } = JSON.parse(document.getElementById("charts").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const views = new Map();

// "@accent" becomes the theme's colour; data and the names of members are left alone.
function painted(node, palette) {
  if (Array.isArray(node)) return node.map((item) => painted(item, palette));
  if (node && typeof node === "object")
    return Object.fromEntries(
      Object.entries(node).map(([key, value]) => [
        key,
        key === "datasets" || key === "domain" ? value : painted(value, palette),
      ]),
    );
  return typeof node === "string" && node.startsWith("@") ? (palette[node.slice(1)] ?? node) : node;
}

async function draw({ id, spec }, theme) {
  const place = document.getElementById(id);
  views.get(id)?.finalize();
  const result = await window.vegaEmbed(place, painted(spec, palettes[theme]), {
    actions: false,
    ast: true, // expressions are interpreted, not compiled: the page's policy forbids eval
    config: painted(config, palettes[theme]),
    formatLocale: locale,
    renderer: "svg",
    tooltip: { theme },
  });
  views.set(id, result);
}

async function drawAll() {
  const theme = dark.matches ? "dark" : "light";
  let failed = 0;
  for (const chart of charts) {
    try {
      await draw(chart, theme);
    } catch (error) {
      failed += 1;
      document.getElementById(chart.id).textContent = "This chart could not be drawn.";
      console.error(`chart ${chart.id}: ${error}`);
    }
  }
  document.documentElement.dataset.state = failed ? "failed" : "ready";
  window.__failed = failed;
  window.__ready = true;
}

dark.addEventListener("change", drawAll);
await drawAll();
