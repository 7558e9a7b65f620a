/** The base of the map: land, borders and a graticule, drawn from a file of the page. It works without internet. */
import type {
    ExpressionSpecification,
    FilterSpecification,
    LayerSpecification,
    Map as MapLibreMap,
    StyleSpecification,
} from 'maplibre-gl';
import type {FeatureCollection} from 'geojson';

/** Colours of the map, which `theme.css` holds as variables. */
export interface MapColours {
    sea: string;
    land: string;
    coast: string;
    border: string;
    graticule: string;
    accent: string;
    hit: string;
    halo: string;
    area: string;
}

const VARIABLES: Record<keyof MapColours, string> = {
    sea: '--map-sea',
    land: '--map-land',
    coast: '--map-coast',
    border: '--map-border',
    graticule: '--map-graticule',
    accent: '--map-accent',
    hit: '--map-hit',
    halo: '--map-halo',
    area: '--map-area',
};

/** Return the colours of the current theme. */
export function mapColours(): MapColours {
    // A variable holds the colours of both themes. Only a property of an element has one of them.
    const probe = document.body.appendChild(document.createElement('span'));
    const entries = Object.entries(VARIABLES).map(([name, variable]) => {
        probe.style.color = `var(${variable})`;
        return [name, getComputedStyle(probe).color];
    });
    probe.remove();
    return Object.fromEntries(entries) as unknown as MapColours;
}

const content = (name: string): string => document.querySelector<HTMLMetaElement>(`meta[name="${name}"]`)?.content ?? '';

/** Return the absolute URL of a file that the build step named in the page's head. */
export function builtFile(name: 'map-worker' | 'map-land'): string {
    return new URL(content(name), document.baseURI).href;
}

/** Return meridians and parallels, one each `step` degrees. */
function graticule(step: number): FeatureCollection {
    const lines: [number, number][][] = [];
    for (let lon = -180; lon < 180; lon += step) lines.push([[lon, -85], [lon, 85]]);
    for (let lat = -90 + step; lat < 90; lat += step) lines.push([[-180, lat], [180, lat]]);
    return {
        type: 'FeatureCollection',
        features: [{type: 'Feature', properties: {}, geometry: {type: 'MultiLineString', coordinates: lines}}],
    };
}

/** Id of the first layer above the base. Rasters and tiles are inserted between the base and this layer. */
export const ABOVE_RASTERS = 'above-rasters';

/** Zooms between which the coast fades out. Its corners are up to 50 km wrong, which would mislead a close look. */
const FADE: [from: number, to: number] = [6, 8.5];

/** Return an expression that goes from one value to another while the coast fades out. */
function fading<T extends number | string>(from: T, to: T): ExpressionSpecification {
    return ['interpolate', ['linear'], ['zoom'], FADE[0], from, FADE[1], to];
}

/** Return the layers of the base without internet. */
export function baseLayers(colours: MapColours): LayerSpecification[] {
    const {sea, land, coast, border, graticule: lines} = colours;
    const isLand: FilterSpecification = ['==', ['get', 'kind'], 'land'];
    return [
        {id: 'sea', type: 'background', paint: {'background-color': fading(sea, land)}},
        {id: 'land', type: 'fill', source: 'land', filter: isLand, paint: {'fill-color': land}},
        {
            id: 'coast',
            type: 'line',
            source: 'land',
            filter: isLand,
            paint: {'line-color': coast, 'line-width': 0.8, 'line-opacity': fading(1, 0)},
        },
        {
            id: 'borders',
            type: 'line',
            source: 'land',
            filter: ['==', ['get', 'kind'], 'border'],
            paint: {'line-color': border, 'line-width': 0.8, 'line-opacity': fading(1, 0)},
        },
        {id: 'graticule', type: 'line', source: 'graticule', paint: {'line-color': lines, 'line-width': 0.6}},
        {
            id: 'fine-graticule',
            type: 'line',
            source: 'fine-graticule',
            minzoom: 5.5,
            paint: {'line-color': lines, 'line-width': 0.6},
        },
    ];
}

/** Return the style of the base. */
export function baseStyle(colours: MapColours): StyleSpecification {
    return {
        version: 8,
        sources: {
            land: {type: 'geojson', data: builtFile('map-land'), attribution: 'Natural Earth'},
            graticule: {type: 'geojson', data: graticule(10)},
            'fine-graticule': {type: 'geojson', data: graticule(1)},
        },
        layers: [
            ...baseLayers(colours),
            {id: ABOVE_RASTERS, type: 'background', paint: {'background-opacity': 0}},
        ],
    };
}

/** Paint the layers of a map in the colours that `layers` hold. */
export function repaint(map: MapLibreMap, layers: LayerSpecification[]): void {
    for (const {id, paint} of layers) {
        if (!map.getLayer(id)) continue;
        for (const [property, value] of Object.entries(paint ?? {})) {
            map.setPaintProperty(id, property as Parameters<MapLibreMap['setPaintProperty']>[1], value);
        }
    }
}
