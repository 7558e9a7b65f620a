/** The range of the similarities of an answer. The bars in the strip show where a tile lies in it. */
import type {Hit} from './api.ts';
import {similarityText} from './texts.ts';

/** The smallest and the largest similarity of the tiles of an answer. */
export type Range = [low: number, high: number];

/** Return the range of the similarities of an answer, or null if it has no tile. */
export function rangeOf(hits: readonly Hit[]): Range | null {
    if (hits.length === 0) return null;
    const values = hits.map(({properties}) => properties.similarity);
    return [Math.min(...values), Math.max(...values)];
}

/** Part of a bar that the least similar tile fills. An empty bar would look like a similarity that is not known. */
const LEAST = 0.06;

/** Return the part of its bar that a similarity fills, from 0 to 1. Equal similarities fill it. */
export function shareOfRange(similarity: number, [low, high]: Range): number {
    if (high <= low) return 1;
    const share = Math.min(1, Math.max(0, (similarity - low) / (high - low)));
    return LEAST + (1 - LEAST) * share;
}

/** Return the range as text for people. */
export function rangeText([low, high]: Range): string {
    return `Similarity ${similarityText(low)} to ${similarityText(high)}`;
}
