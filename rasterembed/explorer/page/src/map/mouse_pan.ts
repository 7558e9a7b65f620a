/** When a press of the mouse begins to move the map. */
import type {Map as MapLibreMap} from 'maplibre-gl';

/** MapLibre's handler of a pan with the mouse, with a field that its types leave out. */
export type MousePan = MapLibreMap['dragPan']['_mousePan'] & {_activateOnStart?: boolean};

/**
 * Let a pan begin with the first movement of the mouse, and not with the press of its button.
 *
 * MapLibre has no option for it, so this sets a private field. Without the field, nothing changes: a click then draws
 * the whole map once more. `tests/mouse_pan.test.ts` fails if a newer MapLibre has no such field.
 */
export function beginWithMovement(pan: MousePan): void {
    if (pan._activateOnStart !== undefined) pan._activateOnStart = false;
}
