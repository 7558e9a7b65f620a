/** The numbers beside the tiles of an answer on the map, drawn on a canvas. A server of glyphs is not needed. */
import type {Map as MapLibreMap} from 'maplibre-gl';

/** Largest rank with a number on the map. The outlines of the other tiles have no number. */
export const MOST_BADGES = 200;

const RATIO = 2; // Pixels of the picture for each pixel of the page, so that the numbers are sharp on most screens.
const HEIGHT = 18;

/** Return the name of the picture of a rank. */
export function badgeName(rank: number): string {
    return `rank-${rank}`;
}

/** Add the pictures of the ranks 1 to `count` to the style of a map, as far as it lacks them. */
export function addBadges(map: MapLibreMap, count: number): void {
    for (let rank = 1; rank <= Math.min(count, MOST_BADGES); rank += 1) {
        const name = badgeName(rank);
        if (map.hasImage(name)) continue;
        const picture = drawBadge(String(rank));
        if (picture !== null) map.addImage(name, picture, {pixelRatio: RATIO});
    }
}

function drawBadge(text: string): ImageData | null {
    const width = 12 + 7 * text.length;
    const canvas = document.createElement('canvas');
    canvas.width = width * RATIO;
    canvas.height = HEIGHT * RATIO;
    const context = canvas.getContext('2d');
    if (context === null) return null;
    context.scale(RATIO, RATIO);
    context.beginPath();
    context.roundRect(1, 1, width - 2, HEIGHT - 2, 8);
    context.fillStyle = '#1b1f24';
    context.fill();
    context.lineWidth = 1.5;
    context.strokeStyle = '#ffb020';
    context.stroke();
    context.fillStyle = '#ffffff';
    context.font = '600 11px system-ui, sans-serif';
    context.textAlign = 'center';
    context.textBaseline = 'middle';
    context.fillText(text, width / 2, HEIGHT / 2 + 0.5);
    return context.getImageData(0, 0, canvas.width, canvas.height);
}
