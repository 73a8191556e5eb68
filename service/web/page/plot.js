// Angles over time with uPlot; a click goes to the frame.

import uPlot from "./vendor/uPlot.esm.js";

const COLORS = ["#3b82f6", "#f97316", "#22c55e", "#a855f7", "#ef4444", "#14b8a6", "#eab308", "#ec4899"];

// Null where no angle was measured.
export function anglePlot(place, frames, onFrame) {
  place.replaceChildren();
  const series = new Map();
  frames.forEach((frame, number) => {
    for (const angle of frame.angles || []) {
      for (const side of ["left", "right"]) {
        const value = angle[side]?.smoothed_degrees ?? angle[side]?.degrees;
        if (value === undefined || value === null) continue;
        const who = angle.track_id === undefined ? "" : ` ${angle.track_id}`;
        const label = `${angle.name.replaceAll("_", " ")} ${side}${who}`;
        if (!series.has(label)) series.set(label, new Array(frames.length).fill(null));
        series.get(label)[number] = value;
      }
    }
  });
  if (!series.size) return null;
  const style = getComputedStyle(document.body);
  const ink = style.getPropertyValue("--quiet");
  const line = style.getPropertyValue("--line");
  const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
  const plot = new uPlot({
    width: place.clientWidth || 600,
    height: 240,
    scales: { x: { time: false } },
    axes: [{ ...axis, label: "s", labelSize: 20 }, { ...axis, label: "degrees", labelSize: 20, size: 44 }],
    series: [{ label: "s" }, ...[...series.keys()].map((label, number) => ({
      label, stroke: COLORS[number % COLORS.length], width: 2, points: { show: frames.length < 60 },
      value: (_, value) => (value === null ? "–" : `${value.toFixed(1)}°`),
    }))],
    legend: { live: true },
    hooks: {
      ready: [(ready) => ready.over.addEventListener("click", () => {
        if (ready.cursor.idx !== null) onFrame(ready.cursor.idx);
      })],
    },
  }, [frames.map((frame) => frame.time), ...series.values()], place);
  const observer = new ResizeObserver(() => {
    const width = place.clientWidth - 16;
    if (width > 0 && Math.abs(width - plot.width) > 1) plot.setSize({ width, height: 240 });
  });
  observer.observe(place);
  return {
    mark(number) {
      const left = plot.valToPos(frames[number].time, "x");
      plot.setCursor({ left, top: -10 });
    },
    destroy() { observer.disconnect(); plot.destroy(); },
  };
}
