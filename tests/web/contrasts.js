// All visible text whose contrast to its background is below 7:1 (WCAG 2.2, success criterion 1.4.6).
() => {
  const channel = (value) => (value <= 10 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parse = (text) => text.match(/[\d.]+/g).map(Number);
  const background = (element) => {
    for (let holder = element; holder; holder = holder.parentElement) {
      const color = parse(getComputedStyle(holder).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.body.querySelectorAll("*")) {
    const hasText = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!hasText || !element.checkVisibility()) continue;
    const two = [luminance(parse(getComputedStyle(element).color)), luminance(background(element))];
    const ratio = (Math.max(...two) + 0.05) / (Math.min(...two) + 0.05);
    if (ratio < 7) poor.push(`${element.tagName}.${element.className} ${ratio.toFixed(1)}: ${element.textContent}`);
  }
  return poor;
}
