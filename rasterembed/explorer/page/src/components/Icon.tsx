/** Icons as outlines on a field of 16 by 16. They are decoration: the control beside them has the name. */
const PATHS = {
    back: 'M10 3 5 8l5 5',
    close: 'm4 4 8 8M12 4l-8 8',
    chevron: 'm4 6 4 4 4-4',
    plus: 'M8 3v10M3 8h10',
    minus: 'M3 8h10',
    fit: 'M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10',
    sun: 'M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6ZM8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1.1 1.1M11.9 11.9 13 13M13 3l-1.1 1.1M4.1 11.9 3 13',
    moon: 'M13.5 9.5A6 6 0 0 1 6.5 2.5a6 6 0 1 0 7 7Z',
    system: 'M2 3h12v8H2zM6 14h4M8 11v3',
    search: 'M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9ZM10.5 10.5 14 14',
    box: 'M3 3h10v10H3z',
    polygon: 'M8 2 14 6.5 11.5 14h-7L2 6.5Z',
    image: 'M2 3h12v10H2zM2 11l3.5-3.5L9 11l2-2 3 3M10.5 6h.01',
    download: 'M8 2v8M4.5 7 8 10.5 11.5 7M2.5 13.5h11',
    external: 'M6 3H3v10h10v-3M9 2.5h4.5V7M13.5 2.5 7.5 8.5',
    more: 'M3.5 8h.01M8 8h.01M12.5 8h.01',
    swipe: 'M8 2v12M5 5 2.5 8 5 11M11 5l2.5 3L11 11',
    calendar: 'M2.5 3.5h11v10h-11zM2.5 6.5h11M5.5 2v3M10.5 2v3',
    info: 'M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2ZM8 7.5v3.5M8 5h.01',
    like: 'M8 3v10M3 8h10',
    unlike: 'M3 8h10',
    target: 'M8 3.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9ZM8 1v4M8 11v4M1 8h4M11 8h4',
    'sign-out': 'M6.5 2.5h-4v11h4M10.5 5 13.5 8l-3 3M13.5 8H6.5',
    left: 'M10 3 5 8l5 5',
    right: 'm6 3 5 5-5 5',
    scenes: 'M3 5h8v8H3zM5.5 5V2.5h8v8H11',
    raster: 'M2.5 2.5h11v11h-11zM2.5 8h11M8 2.5v11',
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({name, size = 16}: {name: IconName; size?: number}) {
    return (
        <svg
            width={size}
            height={size}
            viewBox="0 0 16 16"
            fill="none"
            stroke="currentColor"
            stroke-width="1.5"
            stroke-linecap="round"
            stroke-linejoin="round"
            aria-hidden="true"
        >
            <path d={PATHS[name]} />
        </svg>
    );
}
