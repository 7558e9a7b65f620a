/** The sheet at the bottom of a narrow page makes room for the map by itself. */
import {effect} from '@preact/signals';
import {searching} from './search_state.ts';
import {answer, drawing, sheet} from './state.ts';

/** Lower the sheet for a search and its answer, and when an area is drawn: a person looks at the map then. */
export function followSheet(): void {
    effect(() => {
        if (searching.value || answer.value.state !== 'idle') sheet.value = 'peek';
    });
    effect(() => {
        if (drawing.value !== null) sheet.value = 'peek';
    });
}
