/** The sheet at the bottom of a narrow page makes room for the map by itself. */
import {effect} from '@preact/signals';
import {answer, drawing, sheet} from './state.ts';

/** Lower the sheet when a search begins or an area is drawn, because the map and the answer are to be seen then. */
export function followSheet(): void {
    effect(() => {
        if (answer.value.state === 'loading' || drawing.value !== null) sheet.value = 'peek';
    });
}
