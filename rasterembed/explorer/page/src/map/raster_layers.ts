/** The map tiles that the service draws: the rasters, and the tiles in their colours. */
import type {Map as MapLibreMap, RasterSourceSpecification, RasterTileSource} from 'maplibre-gl';
import type {Bbox, ViewDetails} from '../api.ts';
import {ABOVE_RASTERS} from './base_style.ts';

/** The layers in the order in which they are drawn. */
const ORDER = ['basemap', 'imagery', 'tiles'] as const;

type RasterLayer = (typeof ORDER)[number];

/** Pixels of a map tile's side, as the service draws them. */
const SIDE = 512;
/** Zoom down to which coloured tiles are drawn anew. Below it, their map tiles are enlarged: they are flat colours. */
const DEEPEST = 20;
/** Latitude at which the square of Web Mercator ends. */
const END_OF_MERCATOR = 85.0511;

/** Return the bounds of a source. MapLibre's bounds cannot cross the antimeridian: they go around the Earth then. */
function sourceBounds(bbox: Bbox | null): Bbox {
    if (!bbox) return [-180, -END_OF_MERCATOR, 180, END_OF_MERCATOR];
    const [west, south, east, north] = bbox;
    return west > east ? [-180, south, 180, north] : bbox;
}

/**
 * Return the source of a base map from another host. Most hosts have map tiles of 256 pixels, down to zoom 19.
 *
 * Args:
 *     attribution: Text that names the owners of the base map.
 */
export function basemapSource(url: string, attribution: string | null): RasterSourceSpecification {
    const source: RasterSourceSpecification = {type: 'raster', tiles: [url], tileSize: 256, minzoom: 0, maxzoom: 19};
    return attribution === null ? source : {...source, attribution: asHtml(attribution)};
}

const ENTITIES: Record<string, string> = {'&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;'};

/** Return HTML that shows a text as it is. MapLibre takes attributions for HTML. */
export function asHtml(text: string): string {
    return text.replaceAll(/[&<>"']/g, (letter) => ENTITIES[letter] ?? '');
}

/** Return the source of the rasters of a view. */
export function imagerySource(view: ViewDetails, url: string): RasterSourceSpecification {
    return {
        type: 'raster',
        tiles: [url],
        tileSize: SIDE,
        minzoom: view.min_zoom,
        maxzoom: view.max_zoom,
        bounds: sourceBounds(view.bbox),
    };
}

/** Return the source of the coloured tiles of a view. */
export function tilesSource(view: ViewDetails, url: string): RasterSourceSpecification {
    return {type: 'raster', tiles: [url], tileSize: SIDE, minzoom: 0, maxzoom: DEEPEST, bounds: sourceBounds(view.bbox)};
}

/** Return the layer below which a layer lies. */
function above(map: MapLibreMap, id: RasterLayer): string {
    const later = ORDER.slice(ORDER.indexOf(id) + 1);
    return later.find((name) => map.getLayer(name)) ?? ABOVE_RASTERS;
}

function hasSameExtent(source: RasterTileSource, {minzoom, maxzoom, bounds}: RasterSourceSpecification): boolean {
    const [west, south, east, north] = bounds ?? [];
    const known = source.serialize().bounds ?? [];
    const isSameBox = known[0] === west && known[1] === south && known[2] === east && known[3] === north;
    return source.minzoom === minzoom && source.maxzoom === maxzoom && isSameBox;
}

/** Show the map tiles of a source in a layer, or nothing if the source is null. */
export function showRaster(map: MapLibreMap, id: RasterLayer, source: RasterSourceSpecification | null): void {
    const existing = map.getSource<RasterTileSource>(id);
    if (existing && source?.tiles && hasSameExtent(existing, source)) {
        if (existing.tiles[0] !== source.tiles[0]) existing.setTiles(source.tiles);
        return;
    }
    if (existing) {
        map.removeLayer(id);
        map.removeSource(id);
    }
    if (!source) return;
    map.addSource(id, source);
    // The pixels of a raster are smoothed. The coloured tiles keep their edges, which have a meaning.
    const resampling = id === 'tiles' ? 'nearest' : 'linear';
    const paint = {'raster-fade-duration': 120, 'raster-resampling': resampling} as const;
    map.addLayer({id, type: 'raster', source: id, paint}, above(map, id));
}
