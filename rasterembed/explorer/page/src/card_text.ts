/** Texts about a dataset or a collection. */
import type {Card} from './api.ts';
import {count, counted, days} from './format.ts';

export type Tone = 'ok' | 'warn' | 'bad' | 'busy' | '';

const STATES: Record<string, [label: string, tone: Tone]> = {
    ready: ['Ready', 'ok'],
    embedded: ['Not checked', 'warn'],
    failed_qa: ['Failed checks', 'bad'],
    embedding: ['Unfinished', 'warn'],
    unfinished: ['Unfinished', 'warn'],
    unreadable: ['Cannot be read', 'bad'],
};

/** Return the text and the tone of a card's state. A state that the page does not know is shown as it is. */
export function stateOf(card: Card): {label: string; tone: Tone} {
    if (card.progress?.running) return {label: 'Running', tone: 'busy'};
    // A collection stays usable if its checks fail.
    if (card.state === 'ready' && card.qa?.passed === false) return {label: 'Ready, failed checks', tone: 'warn'};
    const [label, tone] = STATES[card.state] ?? [card.state.replaceAll('_', ' '), ''];
    return {label, tone};
}

/** Return the number of scenes of a collection, such as "7 scenes, 2 failed", or null for a dataset. */
export function scenesOf({scenes, failed}: Pick<Card, 'scenes' | 'failed'>): string | null {
    if (scenes === null) return null;
    return counted(scenes, 'scene') + (failed ? `, ${count(failed)} failed` : '');
}

/** Return the amounts of a card for one line, such as "7 scenes, 2 failed · 1,024 tiles". */
export function amountsOf(card: Card): string {
    const amounts: string[] = [];
    const scenes = scenesOf(card);
    if (scenes !== null) amounts.push(scenes);
    const tiles = card.rows ?? card.tiles;
    if (tiles !== null) amounts.push(counted(tiles, 'tile'));
    return amounts.join(' · ');
}

/** Return the days of acquisition of a card, or null if they are not known. */
export function datesOfCard(card: Card): string | null {
    return days(card.first, card.last);
}

/** Return whether a card matches the words that a person looks for. */
export function matches(card: Card, words: string): boolean {
    const text = [card.id, card.model ?? '', card.raster ?? '', stateOf(card).label].join(' ').toLowerCase();
    return words
        .toLowerCase()
        .split(/\s+/)
        .every((word) => text.includes(word));
}
