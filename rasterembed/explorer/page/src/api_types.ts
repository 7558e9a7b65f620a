/** The bodies of the service's requests and answers. */
import type {Feature, FeatureCollection, Geometry, MultiPolygon, Point, Polygon} from 'geojson';

export type ViewKind = 'datasets' | 'collections';

/** What names a view: its kind and its id. */
export interface ViewKey {
    kind: ViewKind;
    id: string;
}

/** West, south, east and north in degrees. West is larger than east if the box crosses the antimeridian. */
export type Bbox = [number, number, number, number];

/** How far a run is that has not ended. */
export interface Progress {
    /** Shards of the plan. Null for a collection: the number of its scenes is not known. */
    shards: number | null;
    /** Shards that are written, or scenes in the catalogue of a collection. */
    done: number;
    /** Whether a run writes now. If not, the same command continues it. */
    running: boolean;
}

export interface Card extends ViewKey {
    state: string;
    problem: string | null;
    model: string | null;
    created: string | null;
    modified: string | null;
    tiles: number | null;
    rows: number | null;
    skipped: number | null;
    /** Scenes of a collection, with those that failed. */
    scenes: number | null;
    /** Scenes of a collection that could not be embedded. */
    failed: number | null;
    bytes: number | null;
    bbox: Bbox | null;
    first: string | null;
    last: string | null;
    raster: string | null;
    qa: {passed: boolean; line: string} | null;
    index: string | null;
    progress: Progress | null;
}

export interface StoreAnswer {
    root: string;
    version: string;
    prefect_ui: string | null;
    basemap: string | null;
    /** Text that names the owners of the base map. */
    basemap_attribution: string | null;
    /** Whether the service has a token, so that the person can sign out. */
    signed_in: boolean;
    datasets: Card[];
    collections: Card[];
}

export interface ProgressOfView extends ViewKey, Progress {
    modified: string | null;
}

export interface DateOfView {
    date: string;
    scenes: number;
    rows: number;
}

export interface ColourChoice {
    name: string;
    label: string;
}

export interface Picture {
    name: string;
    title: string;
    url: string;
}

export interface ViewDetails extends Card {
    v: string;
    dimensions: number;
    pooling: string;
    /** The grid of tiles in one line. */
    grid: string;
    /** Whether all scenes share the ids of their tiles. */
    anchored: boolean;
    /** How pixels became colours, in one line. Null for a collection. */
    radiometry: string | null;
    tile_size: number;
    outline: Geometry | null;
    /** Whether the rasters have a place on Earth. If not, the map shows them at a made-up place. */
    on_earth: boolean;
    dates: DateOfView[];
    colours: ColourChoice[];
    /** Whether the view can be searched. A dataset whose quality checks did not pass cannot. */
    searchable: boolean;
    pictures: Picture[];
    prefect_url: string | null;
    /** Least zoom at which the rasters are drawn. */
    min_zoom: number;
    /** Zoom at which a pixel of a raster is about as large as one of the map. */
    max_zoom: number;
}

export interface Legend {
    type: 'ramp' | 'classes' | 'rgb';
    colour: string;
    label: string;
    stops?: {value: number; colour: string}[];
    classes?: {label: string; colour: string; tiles: number}[];
    channels?: string[];
    low?: number | null;
    high?: number | null;
    low_text?: string;
    high_text?: string;
    unit?: 'share' | 'similarity' | 'time';
    note: string;
}

/** A tile of a dataset, as `at` describes it. */
export interface Tile {
    dataset_id: string;
    tile_id: string;
    lon: number | null;
    lat: number | null;
    valid_fraction: number | null;
    acquired: string | null;
    geometry: Polygon | MultiPolygon | null;
    [column: string]: unknown;
}

export interface HitProperties {
    rank: number;
    dataset_id: string;
    tile_id: string;
    distance: number;
    similarity: number;
    lon: number | null;
    lat: number | null;
    valid_fraction: number | null;
    acquired: string | null;
    scene: string | null;
    cloud_cover: number | null;
}

export type Hit = Feature<Polygon | MultiPolygon | Point | null, HitProperties> & {id: string};

/** An example of the query: a tile, a place in a tile, or an image. */
export interface Example {
    role: string;
    tile: string | null;
    image: string | null;
    lonlat: [number, number] | null;
    remark: string;
}

/** The search engine that answered. */
export interface Engine {
    dataset_id: string;
    name: string;
    why: string;
}

export interface Answer {
    type: 'FeatureCollection';
    features: Hit[];
    query: string;
    model: string;
    examples: Example[];
    notes: string[];
    /** Those of the notes that say which filter left no tile, or what a person may have meant instead. */
    hints: string[];
    engines: Engine[];
    seconds: number;
    k: number;
}

export interface QueryBody {
    tile?: string;
    lonlat?: [number, number];
    image?: string;
    like?: string[];
    unlike?: string[];
    include_query?: boolean;
}

export type Pick = 'all' | 'latest' | 'clearest';

export interface WhereBody {
    bbox?: Bbox;
    polygon?: Polygon;
    min_valid_fraction?: number;
    since?: string;
    until?: string;
    max_cloud_cover?: number;
    scenes?: string[];
    pick?: Pick;
}

export interface SearchBody {
    query: QueryBody;
    where?: WhereBody;
    k: number;
}

/** A place on the map whose tile is searched for. `date` chooses the scene if the map shows two dates. */
export interface ClickBody {
    lonlat: [number, number];
    date?: string;
    where?: WhereBody;
    k: number;
}

/** The tile of each scene at a place, the latest scene first, and the answer for the first one. */
export interface ClickAnswer {
    tiles: Tile[];
    answer: Answer | null;
}

export type ExportFormat = 'geojson' | 'geoparquet' | 'python';

export interface UploadedImage {
    image: string;
    width: number;
    height: number;
    remark: string | null;
}

export interface Similarity {
    similarity: string;
    low: number;
    high: number;
}

export type Footprints = FeatureCollection<Polygon | MultiPolygon> & {truncated?: boolean};
