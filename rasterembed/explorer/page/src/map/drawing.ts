/** Begin and end the drawing of an area, and take the visible part of the map as one. */
import {effect} from '@preact/signals';
import {setArea} from '../search_actions.ts';
import {corners} from '../search_state.ts';
import {drawing, openView, status} from '../state.ts';
import {boxOfCorners} from './area.ts';
import {map} from './camera.ts';
import {DrawTool} from './draw_tool.ts';
import type {DrawKind} from './draw_tool.ts';
import {visibleBox} from './visible_part.ts';

/** Longest time from the touch of a finger to its click, in milliseconds. */
const CLICK_PAUSE = 350;

let tool: DrawTool | null = null;
let ended = -CLICK_PAUSE;

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
    const [west, south, east, north] = visibleBox(shown);
    setArea({kind: 'box', box: boxOfCorners([west, south], [east, north])});
}

/** Whether a drawing ended just now: the click that ended it reaches the map too, which must not take it for a search. */
export function drewJustNow(): boolean {
    return performance.now() - ended < CLICK_PAUSE;
}

function stop(): void {
    if (tool === null) return;
    tool.close();
    tool = null;
    ended = performance.now();
    drawing.value = null;
}

/** End the drawing when another view opens. Return a function that ends this. */
export function followViewWhileDrawing(): () => void {
    return effect(() => {
        void openView.value?.id;
        stop();
    });
}
