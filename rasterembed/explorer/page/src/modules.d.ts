declare module 'maplibre-gl-worker';
declare module 'maplibre-gl-css';
declare module '*.css';
