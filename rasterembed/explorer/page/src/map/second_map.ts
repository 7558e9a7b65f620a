/** The map on the right of the divider. It follows the first map, and shows the other date. */
import type {Map as MapLibreMap} from 'maplibre-gl';
import {swipe} from '../state.ts';
import {followAnswer} from './answer_layers.ts';
import {mapColours} from './base_style.ts';
import {followState} from './layers.ts';
import type {ShownDates} from './layers.ts';
import {addVectorLayers} from './vector_layers.ts';
import {followTheme, makeMap} from './map.ts';

/** Make a map in `container` that follows the map `main`. Return a function that removes it. */
export function mountSecondMap(container: HTMLElement, main: MapLibreMap): () => void {
    const second = makeMap(container, {...placeOf(main), interactive: false});
    const follow = (): void => {
        second.jumpTo(placeOf(main));
    };
    const ends: (() => void)[] = [];
    main.on('move', follow);
    second.once('style.load', () => {
        addVectorLayers(second, mapColours());
        const dates = (): ShownDates => {
            const right = swipe.value?.right ?? null;
            return {since: right, until: right};
        };
        ends.push(followState(second, dates), followAnswer(second), followTheme(second));
    });
    return () => {
        main.off('move', follow);
        for (const end of ends) end();
        second.remove();
    };
}

function placeOf(main: MapLibreMap): {center: [number, number]; zoom: number} {
    const {lng, lat} = main.getCenter();
    return {center: [lng, lat], zoom: main.getZoom()};
}
