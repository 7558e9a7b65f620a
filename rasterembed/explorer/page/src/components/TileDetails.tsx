import {useEffect, useRef} from 'preact/hooks';
import {count, sentence} from '../format.ts';
import {centreOnMap, flyToTile} from '../map/flights.ts';
import {searchTile, toggleExample} from '../search_actions.ts';
import {details} from '../search_state.ts';
import {answer, knownTiles, query, valueOf} from '../state.ts';
import {CopyButton} from './CopyButton.tsx';
import {Icon} from './Icon.tsx';
import {IconButton} from './IconButton.tsx';
import {Thumbnail} from './Thumbnail.tsx';
import './TileDetails.css';

const ROLES = ['like', 'unlike'] as const;

/** Everything that is known about one tile, and what can be done with it. */
export function TileDetails() {
    const name = details.value;
    return name === null ? null : <OpenDetails key={name} name={name} />;
}

function close(): void {
    details.value = null;
}

function OpenDetails({name}: {name: string}) {
    const panel = useRef<HTMLElement>(null);
    useEffect(() => {
        const before = document.activeElement;
        panel.current?.focus({preventScroll: true});
        return () => {
            if (before instanceof HTMLElement && before.isConnected) before.focus();
        };
    }, []);
    const tile = knownTiles.value.get(name);
    // Rank and similarity are those of the answer on the page: a newer answer has others, or lacks the tile.
    const hit = valueOf(answer.value)?.features.find(({id}) => id === name)?.properties;
    if (tile === undefined) return null;
    return (
        <section
            ref={panel}
            class="tile-details floating"
            role="dialog"
            aria-label={`Tile ${name}`}
            tabIndex={-1}
            onKeyDown={(event) => {
                if (event.key === 'Escape') close();
            }}
        >
            <header>
                <h2 title={name}>{tile.tile_id}</h2>
                <IconButton icon="close" label="Close" class="quiet small" onClick={close} />
            </header>
            <div class="tile-details-body">
                <Thumbnail name={name} />
                <div class="tile-details-actions">
                    <button type="button" class="button small primary" onClick={() => searchTile(name)}>
                        <Icon name="search" size={14} />
                        Search from here
                    </button>
                    {ROLES.map((role) => (
                        <button
                            key={role}
                            type="button"
                            class="button small"
                            aria-pressed={query.value[role].includes(name)}
                            onClick={() => toggleExample(name, role)}
                        >
                            <Icon name={role} size={12} />
                            {role === 'like' ? 'More like this' : 'Less like this'}
                        </button>
                    ))}
                    {centreOnMap(tile, tile.geometry) && (
                        <button type="button" class="button small" onClick={() => flyToTile(tile, tile.geometry)}>
                            <Icon name="target" size={14} />
                            Show
                        </button>
                    )}
                    <CopyButton text={name} label="Copy the id" />
                </div>
                <dl>
                    {propertiesOf({...hit, ...tile}).map(([title, text]) => (
                        <div key={title}>
                            <dt>{title}</dt>
                            <dd>{text}</dd>
                        </div>
                    ))}
                </dl>
            </div>
        </section>
    );
}

const TITLES: Record<string, string> = {
    rank: 'Rank',
    similarity: 'Similarity',
    distance: 'Distance',
    dataset_id: 'Dataset',
    tile_id: 'Tile',
    lon: 'Longitude',
    lat: 'Latitude',
    valid_fraction: 'Valid pixels',
    acquired: 'Acquired',
    scene: 'Scene',
    cloud_cover: 'Cloud cover',
    col_off: 'Left edge',
    row_off: 'Upper edge',
    width: 'Width',
    height: 'Height',
};

/** Names of properties that are numbers of pixels. */
const PIXELS = ['col_off', 'row_off', 'width', 'height'];

/** Return the names and the values of a tile's properties, as text. Outlines are left out. */
function propertiesOf(tile: Record<string, unknown>): [string, string][] {
    return Object.entries(tile)
        .filter(([name, value]) => name !== 'geometry' && value !== null && value !== undefined)
        .map(([name, value]) => [TITLES[name] ?? sentence(name.replaceAll('_', ' ')), valueText(name, value)]);
}

function valueText(name: string, value: unknown): string {
    if (typeof value === 'number') {
        if (name === 'valid_fraction') return `${(100 * value).toFixed(1)} %`;
        if (PIXELS.includes(name)) return `${count(value)} px`;
        if (name === 'cloud_cover') return `${value.toFixed(1)} %`;
        if (name === 'lon' || name === 'lat') return `${value.toFixed(6)}°`;
        return Number.isInteger(value) ? String(value) : value.toFixed(6);
    }
    return typeof value === 'string' ? value : JSON.stringify(value);
}
