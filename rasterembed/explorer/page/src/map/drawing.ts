/** Begin and end the drawing of an area, and take the visible part of the map as one. */
import {effect} from '@preact/signals';
import {setArea} from '../search_actions.ts';
import {corners} from '../search_state.ts';
import {drawing, openView, status} from '../state.ts';
import {boxOfCorners} from './area.ts';
import {map} from './camera.ts';
import {DrawTool} from './draw_tool.ts';
import type {DrawKind} from './draw_tool.ts';

let tool: DrawTool | null = null;

/** Begin to draw. The same call ends the drawing of this kind of area. */
export function startDrawing(kind: DrawKind): void {
    const shown = map.peek();
    const same = drawing.peek() === kind;
    stop();
    if (same || !shown) return;
    tool = new DrawTool(shown, kind, {
        drawn: (area) => {
            stop();
            setArea(area);
        },
        cancelled: () => {
            stop();
            status.value = 'The drawing has ended.';
        },
        corners: (count) => {
            corners.value = count;
        },
    });
    corners.value = 0;
    drawing.value = kind;
    shown.getCanvas().focus();
}

export function finishDrawing(): void {
    tool?.finish();
}

export function cancelDrawing(): void {
    tool?.cancel();
}

export function addCorner(): void {
    tool?.addCentre();
}

/** Search in the part of the map that is visible. */
export function takeVisibleArea(): void {
    const shown = map.peek();
    if (!shown) return;
    stop();
    const bounds = shown.getBounds();
    const [southWest, northEast] = [bounds.getSouthWest(), bounds.getNorthEast()];
    setArea({kind: 'box', box: boxOfCorners([southWest.lng, southWest.lat], [northEast.lng, northEast.lat])});
}

function stop(): void {
    tool?.close();
    tool = null;
    // The click that ends a drawing reaches the map's own listener too, which must not take it for a search.
    setTimeout(() => {
        if (tool === null) drawing.value = null;
    });
}

/** End the drawing when another view opens. Return a function that ends this. */
export function followViewWhileDrawing(): () => void {
    return effect(() => {
        void openView.value?.id;
        if (tool) stop();
    });
}
