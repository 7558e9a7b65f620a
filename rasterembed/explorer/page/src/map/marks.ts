/** What the map marks for the query and its answer. It follows the state a little later, because the strip comes first. */
import {effect, signal} from '@preact/signals';
import type {ReadonlySignal} from '@preact/signals';
import {afterPaint} from '../after_paint.ts';
import type {Hit, Tile} from '../api.ts';
import type {ExampleRole} from '../search_actions.ts';
import {searching} from '../search_state.ts';
import {answer, knownTiles, query, selectedTile, valueOf} from '../state.ts';

/** Longest time in milliseconds that the marks of an older answer stay on the map while a new one is on its way. */
const PATIENCE = 200;

export interface Marks {
    /** The tiles of the answer. */
    hits: readonly Hit[];
    /** The tile of the query. */
    selected: Tile | null;
    examples: readonly {tile: Tile; role: ExampleRole}[];
}

const NO_HITS: readonly Hit[] = [];

const shown = signal<Marks>({hits: NO_HITS, selected: null, examples: []});

/** The tiles that the map marks now. */
export const shownMarks: ReadonlySignal<Marks> = shown;

function currentMarks(): Marks {
    const tiles = knownTiles.value;
    const known = (names: string[], role: ExampleRole): Marks['examples'] =>
        names.flatMap((name) => {
            const tile = tiles.get(name);
            return tile ? [{tile, role}] : [];
        });
    const {like, unlike} = query.value;
    return {
        hits: (searching.value ? null : valueOf(answer.value)?.features) ?? NO_HITS,
        selected: selectedTile.value,
        examples: [...known(like, 'like'), ...known(unlike, 'unlike')],
    };
}

function areSame(a: Marks, b: Marks): boolean {
    const hasSameExamples =
        a.examples.length === b.examples.length &&
        a.examples.every(({tile, role}, place) => tile === b.examples[place]?.tile && role === b.examples[place]?.role);
    return a.hits === b.hits && a.selected === b.selected && hasSameExamples;
}

/**
 * Let the marks follow the state. Return a function that ends this.
 *
 * To draw the map anew is the most work of a click. So the map is drawn once for each answer, and after the strip: while
 * a search runs, the marks wait for its end.
 */
export function followMarks(): () => void {
    let timer: number | undefined;
    let stopPaint = (): void => undefined;
    let next = shown.peek();
    const show = (): void => {
        timer = undefined;
        if (!areSame(shown.peek(), next)) shown.value = next;
    };
    const end = effect(() => {
        next = currentMarks();
        stopPaint();
        if (searching.value) {
            // A slider starts one search after the other. The time counts from the first one.
            timer ??= window.setTimeout(show, PATIENCE);
            return;
        }
        clearTimeout(timer);
        timer = undefined;
        stopPaint = afterPaint(show);
    });
    return () => {
        end();
        clearTimeout(timer);
        stopPaint();
    };
}
