/** The outlines of the tiles in sight. */
import {effect, signal} from '@preact/signals';
import type {ReadonlySignal} from '@preact/signals';
import type {Map as MapLibreMap} from 'maplibre-gl';
import * as api from '../api.ts';
import type {Bbox, Parameters} from '../api.ts';
import {isAbort} from '../problems.ts';
import {openView, outlinesShown, viewKey} from '../state.ts';
import {wrapLongitude} from './angles.ts';
import {setData} from './vector_layers.ts';

/** Whether more outlines are in sight than the service sends. */
export const outlinesTruncated = signal(false);
/** Time from the end of a movement to the question, in milliseconds. */
const PAUSE = 200;

/** Return the box in sight. It is the whole Earth if the map shows all longitudes. */
function boxInSight(map: MapLibreMap): Bbox {
    const bounds = map.getBounds();
    const isWhole = bounds.getEast() - bounds.getWest() >= 360;
    return [
        isWhole ? -180 : wrapLongitude(bounds.getWest()),
        Math.max(-90, bounds.getSouth()),
        isWhole ? 180 : wrapLongitude(bounds.getEast()),
        Math.min(90, bounds.getNorth()),
    ];
}

/** Ask for the outlines of the tiles in sight after each movement. Return a function that ends this. */
export function followFootprints(map: MapLibreMap, filters: ReadonlySignal<Parameters>): () => void {
    const moved = signal(0);
    let controller = new AbortController();
    let timer: number | undefined;
    const show = async (): Promise<void> => {
        const view = openView.peek();
        // A view without a tile has no colours, and no outlines.
        if (!view || view.colours.length === 0 || !outlinesShown.peek()) {
            setData(map, 'footprints', []);
            outlinesTruncated.value = false;
            return;
        }
        controller = new AbortController();
        try {
            const found = await api.getFootprints(view, boxInSight(map), filters.peek(), controller.signal);
            outlinesTruncated.value = found.truncated === true;
            setData(map, 'footprints', found.truncated ? [] : found.features);
        } catch (error) {
            // Outlines are an extra. The coloured tiles and the status say when the service is away.
            if (!isAbort(error)) setData(map, 'footprints', []);
        }
    };
    const moves = map.on('moveend', () => {
        moved.value += 1;
    });
    const end = effect(() => {
        void [moved.value, openView.value?.v, viewKey.value, filters.value, outlinesShown.value];
        clearTimeout(timer);
        // An older answer would show outlines of another view, or of other filters.
        controller.abort();
        timer = window.setTimeout(() => void show(), openView.value ? PAUSE : 0);
    });
    return () => {
        end();
        clearTimeout(timer);
        moves.unsubscribe();
        controller.abort();
    };
}
