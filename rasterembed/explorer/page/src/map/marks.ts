/** What the map marks for the query and its answer. It follows the state a little later, because the strip comes first. */
import {computed, effect, signal} from '@preact/signals';
import type {Hit, Tile} from '../api.ts';
import type {ExampleRole} from '../search_actions.ts';
import {answer, knownTiles, query, selectedTile, valueOf} from '../state.ts';

/** Longest time in milliseconds that the marks of an older answer stay on the map while a new one is on its way. */
const PATIENCE = 200;

interface Marks {
    hits: readonly Hit[];
    /** The tile of the query. */
    selected: Tile | null;
    examples: readonly {tile: Tile; role: ExampleRole}[];
}

const NO_HITS: readonly Hit[] = [];

const marks = signal<Marks>({hits: NO_HITS, selected: null, examples: []});

/** The hits that the map marks. */
export const shownHits = computed(() => marks.value.hits);
/** The tile of the query that the map marks. */
export const shownTile = computed(() => marks.value.selected);
/** The liked and unliked tiles that the map marks. */
export const shownExamples = computed(() => marks.value.examples);

function currentMarks(): Marks {
    const tiles = knownTiles.value;
    const known = (names: string[], role: ExampleRole): Marks['examples'] =>
        names.flatMap((name) => {
            const tile = tiles.get(name);
            return tile ? [{tile, role}] : [];
        });
    const {like, unlike} = query.value;
    return {
        hits: valueOf(answer.value)?.features ?? NO_HITS,
        selected: selectedTile.value,
        examples: [...known(like, 'like'), ...known(unlike, 'unlike')],
    };
}

/**
 * Let the marks follow the state. Return a function that ends this.
 *
 * To draw the map anew is the most work of a click. So the map is drawn once for each answer, and after the strip: while
 * a search runs, the marks wait for its end.
 */
export function followMarks(): () => void {
    let timer: number | undefined;
    let frame = 0;
    let next = marks.peek();
    const show = (): void => {
        timer = undefined;
        marks.value = next;
    };
    const end = effect(() => {
        next = currentMarks();
        cancelAnimationFrame(frame);
        if (answer.value.state === 'loading') {
            // A slider starts one search after the other. The time counts from the first one.
            timer ??= window.setTimeout(show, PATIENCE);
            return;
        }
        clearTimeout(timer);
        timer = undefined;
        frame = requestAnimationFrame(() => {
            frame = requestAnimationFrame(show);
        });
    });
    return () => {
        end();
        clearTimeout(timer);
        cancelAnimationFrame(frame);
    };
}
