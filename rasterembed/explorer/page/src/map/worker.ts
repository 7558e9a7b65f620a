/** MapLibre's worker: it reads GeoJSON and cuts it into map tiles beside the page's own thread. */
import 'maplibre-gl-worker';
