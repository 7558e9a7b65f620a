/** The module of MapLibre with its mouse handlers. `build.mjs` finds it among MapLibre's sources. */
declare module 'maplibre-gl-mouse' {
    import type {Map} from 'maplibre-gl';
    export function generateMousePanHandler(options: {enable: boolean; clickTolerance: number}): Map['dragPan']['_mousePan'];
}
