// Covers: the item's own where it has one, else drawn from its id, so that the same item always looks the same; an artist
// keeps one colour.

function numbers(text) {
  let h = 2166136261;
  for (const letter of text) h = Math.imul(h ^ letter.codePointAt(0), 16777619);
  return () => {
    h = Math.imul(h ^ (h >>> 15), 2246822519);
    h = Math.imul(h ^ (h >>> 13), 3266489917);
    return ((h ^= h >>> 16) >>> 0) / 4294967296;
  };
}

const SHAPES = [
  (i, next, paint) => ["circle", { cx: next() * 100, cy: next() * 100, r: 10 + next() * 34, ...paint }],
  (i, next, paint) => ["rect", { x: -10, y: 8 + i * 19, width: 20 + next() * 100, height: 12, rx: 6, ...paint }],
  (i, next, paint) => {
    const x = next() * 100, y = next() * 100, s = 25 + next() * 45;
    return ["polygon", { points: `${x},${y - s} ${x + s},${y + s} ${x - s},${y + s}`, ...paint }];
  },
  (i, next, { fill, opacity }) =>
    ["circle", { cx: 50, cy: 50, r: 46 - i * 9, fill: "none", stroke: fill, "stroke-width": 4 + next() * 4, opacity }],
];

export function cover(card) {
  if (!card.image) return drawn(card);
  const image = Object.assign(new Image(), { className: "cover", alt: "", loading: "lazy", decoding: "async" });
  image.addEventListener("error", () => image.replaceWith(drawn(card)), { once: true });
  image.src = card.image;
  return image;
}

function drawn(card) {
  const next = numbers(card.item_id);
  const hue = Math.floor(numbers(card.artists[0] || card.item_id)() * 360);
  const other = (hue + 25 + Math.floor(next() * 70)) % 360;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 100");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "cover");
  const add = (name, attributes) => {
    const element = document.createElementNS(svg.namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    svg.append(element);
  };
  add("rect", { width: 100, height: 100, fill: `hsl(${hue} 45% 38%)` });
  const shape = SHAPES[Math.floor(next() * SHAPES.length)];
  for (let i = 0; i < 5; i++) {
    const fill = `hsl(${i % 2 ? hue : other} ${50 + next() * 25}% ${45 + next() * 32}%)`;
    add(...shape(i, next, { fill, opacity: 0.55 + next() * 0.4 }));
  }
  return svg;
}
