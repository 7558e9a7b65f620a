/** Drawing a box or a polygon on the map with a mouse, a finger or the keyboard.
 *
 * terra-draw does the same, with many more shapes, in 254 kB of script. This file is about 3 kB.
 *
 * | action | box | polygon |
 * | --- | --- | --- |
 * | mouse, finger | drag from corner to corner, or tap two corners | tap each corner; tap the first one again to close |
 * | keyboard | move the map with the arrow keys; Space sets a corner at the middle of the map | the same; Enter closes |
 * | Backspace | removes the last corner | removes the last corner |
 * | Escape | ends the drawing | ends the drawing |
 */

import type {FeatureCollection, Polygon, Position} from 'geojson';
import type {GeoJSONSource, Map as MapLibreMap, MapMouseEvent} from 'maplibre-gl';
import type {Bbox} from '../api.ts';
import {MOST_CORNERS, boxOfCorners, polygonOfCorners} from './area.ts';
import {visibleMiddle} from './visible_part.ts';

export type DrawnShape = {kind: 'box'; box: Bbox} | {kind: 'polygon'; polygon: Polygon};
export type DrawKind = DrawnShape['kind'];

export interface DrawListener {
    /** A shape is finished. */
    drawn(shape: DrawnShape): void;
    /** The drawing ended without a shape. */
    cancelled(): void;
    /** The number of corners has changed. */
    corners(count: number): void;
}

export const SKETCH = 'sketch';
const CLOSE_PX = 14; // A tap this near to the first corner closes a polygon. A finger covers about as much.
const DRAG_PX = 5; // A pointer that moves less than this sets one corner, instead of a whole box.

export class DrawTool {
    private corners: Position[] = [];
    private pointer: Position | null = null;
    private readonly stops: (() => void)[] = [];

    constructor(
        private readonly map: MapLibreMap,
        private readonly kind: DrawKind,
        private readonly listener: DrawListener,
    ) {
        map.doubleClickZoom.disable();
        map.boxZoom.disable();
        const canvas = map.getCanvas();
        const cursor = canvas.style.cursor;
        canvas.style.cursor = 'crosshair';
        this.stops.push(() => {
            canvas.style.cursor = cursor;
            map.doubleClickZoom.enable();
            map.boxZoom.enable();
        });
        if (kind === 'box') this.listenForBox(canvas);
        else this.listenForPolygon();
        const keydown = (event: KeyboardEvent): void => this.key(event);
        window.addEventListener('keydown', keydown, true);
        this.stops.push(() => window.removeEventListener('keydown', keydown, true));
    }

    /** Set a corner at the middle of the map. It is the way to draw without a pointer. */
    addCentre(): void {
        const centre = this.map.unproject(visibleMiddle());
        this.add([centre.lng, centre.lat]);
    }

    /** Finish the shape, if it has enough corners. */
    finish(): void {
        if (this.kind === 'box') {
            const end = this.corners[1] ?? this.pointer;
            const start = this.corners[0];
            if (start === undefined || end === null) return;
            const box = boxOfCorners(start, end);
            if (box[0] === box[2] || box[1] === box[3]) return;
            this.close();
            this.listener.drawn({kind: 'box', box});
            return;
        }
        if (this.corners.length < 3) return;
        const polygon = polygonOfCorners(this.corners);
        this.close();
        this.listener.drawn({kind: 'polygon', polygon});
    }

    /** End the drawing without a shape. */
    cancel(): void {
        this.close();
        this.listener.cancelled();
    }

    /** Stop to listen, and remove the sketch. */
    close(): void {
        for (const stop of this.stops.splice(0)) stop();
        this.corners = [];
        this.pointer = null;
        this.draw();
    }

    private add(corner: Position): void {
        if (this.corners.length >= MOST_CORNERS) return;
        this.corners.push(corner);
        this.listener.corners(this.corners.length);
        this.draw();
        if (this.kind === 'box' && this.corners.length === 2) this.finish();
    }

    private listenForBox(canvas: HTMLCanvasElement): void {
        const {map} = this;
        const touchAction = canvas.style.touchAction;
        // Without this the browser would scroll or zoom the page under a finger that draws.
        canvas.style.touchAction = 'none';
        map.dragPan.disable();
        let start: {x: number; y: number; first: boolean} | null = null;
        const down = (event: PointerEvent): void => {
            if (!event.isPrimary || event.button !== 0) return;
            canvas.setPointerCapture(event.pointerId);
            start = {x: event.clientX, y: event.clientY, first: this.corners.length === 0};
            if (start.first) this.add(this.place(event));
        };
        const move = (event: PointerEvent): void => {
            if (!event.isPrimary) return;
            this.pointer = this.place(event);
            this.draw();
        };
        const up = (event: PointerEvent): void => {
            if (!event.isPrimary || start === null) return;
            const moved = Math.hypot(event.clientX - start.x, event.clientY - start.y) > DRAG_PX;
            const {first} = start;
            start = null;
            if (moved || !first) this.add(this.place(event));
        };
        const lost = (): void => {
            start = null;
        };
        canvas.addEventListener('pointerdown', down);
        canvas.addEventListener('pointermove', move);
        canvas.addEventListener('pointerup', up);
        canvas.addEventListener('pointercancel', lost);
        this.stops.push(() => {
            canvas.removeEventListener('pointerdown', down);
            canvas.removeEventListener('pointermove', move);
            canvas.removeEventListener('pointerup', up);
            canvas.removeEventListener('pointercancel', lost);
            canvas.style.touchAction = touchAction;
            map.dragPan.enable();
        });
    }

    private listenForPolygon(): void {
        const click = (event: MapMouseEvent): void => {
            const first = this.corners[0];
            if (first !== undefined && this.corners.length >= 3) {
                const [x = 0, y = 0] = first;
                const at = this.map.project([x, y]);
                if (Math.hypot(at.x - event.point.x, at.y - event.point.y) <= CLOSE_PX) {
                    this.finish();
                    return;
                }
            }
            this.add([event.lngLat.lng, event.lngLat.lat]);
        };
        const move = (event: MapMouseEvent): void => {
            this.pointer = [event.lngLat.lng, event.lngLat.lat];
            this.draw();
        };
        // A double click gives two clicks first. The second one set the last corner a second time.
        const twice = (): void => {
            this.corners.pop();
            this.finish();
        };
        this.map.on('click', click);
        this.map.on('mousemove', move);
        this.map.on('dblclick', twice);
        this.stops.push(() => {
            this.map.off('click', click);
            this.map.off('mousemove', move);
            this.map.off('dblclick', twice);
        });
    }

    private key(event: KeyboardEvent): void {
        const onMap = event.target === this.map.getCanvas();
        const handled = ((): boolean => {
            if (event.key === 'Escape') {
                this.cancel();
                return true;
            }
            if (!onMap) return false;
            if (event.key === 'Enter') this.finish();
            else if (event.key === ' ') this.addCentre();
            else if (event.key === 'Backspace') this.removeLast();
            else return false;
            return true;
        })();
        if (!handled) return;
        event.preventDefault();
        event.stopPropagation();
    }

    private removeLast(): void {
        this.corners.pop();
        this.listener.corners(this.corners.length);
        this.draw();
    }

    private place(event: PointerEvent): Position {
        const frame = this.map.getCanvas().getBoundingClientRect();
        const place = this.map.unproject([event.clientX - frame.left, event.clientY - frame.top]);
        return [place.lng, place.lat];
    }

    private draw(): void {
        this.map.getSource<GeoJSONSource>(SKETCH)?.setData(this.sketch());
    }

    private sketch(): FeatureCollection {
        const shown = this.pointer === null ? this.corners : [...this.corners, this.pointer];
        const features: FeatureCollection['features'] = this.corners.map((corner) => ({
            type: 'Feature',
            properties: {},
            geometry: {type: 'Point', coordinates: corner},
        }));
        const [first, second] = shown;
        if (this.kind === 'box' && first !== undefined && second !== undefined) {
            const [x1 = 0, y1 = 0] = first;
            const [x2 = 0, y2 = 0] = second;
            const ring = [
                [x1, y1],
                [x2, y1],
                [x2, y2],
                [x1, y2],
                [x1, y1],
            ];
            features.push({type: 'Feature', properties: {}, geometry: {type: 'Polygon', coordinates: [ring]}});
        } else if (this.kind === 'polygon' && shown.length >= 2 && first !== undefined) {
            features.push(
                shown.length === 2
                    ? {type: 'Feature', properties: {}, geometry: {type: 'LineString', coordinates: shown}}
                    : {type: 'Feature', properties: {}, geometry: {type: 'Polygon', coordinates: [[...shown, first]]}},
            );
        }
        return {type: 'FeatureCollection', features};
    }
}
