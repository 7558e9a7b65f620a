import type {ComponentChildren} from 'preact';
import type {ViewDetails} from '../api.ts';
import {scenesOf} from '../card_text.ts';
import {bytes, count, days, minute, sentence} from '../format.ts';
import {Icon} from './Icon.tsx';
import './DetailsPanel.css';

function Fact({name, children}: {name: string; children: ComponentChildren}) {
    return (
        <div>
            <dt>{name}</dt>
            <dd>{children}</dd>
        </div>
    );
}

/** The facts of a dataset or a collection. */
export function DetailsPanel({details}: {details: ViewDetails}) {
    const {grid, radiometry} = details;
    const bbox = details.on_earth ? details.bbox : null;
    const dates = days(details.first, details.last);
    const scenes = scenesOf(details);
    return (
        <>
            <dl class="facts">
                {details.model && <Fact name="Model">{details.model}</Fact>}
                <Fact name="Vectors">
                    {[`${count(details.dimensions)} dimensions`, details.pooling].join(', ')}
                </Fact>
                {details.rows !== null && <Fact name="Tiles embedded">{count(details.rows)}</Fact>}
                {details.skipped !== null && details.skipped > 0 && <Fact name="Tiles skipped">{count(details.skipped)}</Fact>}
                <Fact name="Tile size">{count(details.tile_size)} px</Fact>
                {scenes && <Fact name="Scenes">{scenes}</Fact>}
                {dates && <Fact name="Acquired">{dates}</Fact>}
                {details.bytes !== null && <Fact name="Size">{bytes(details.bytes)}</Fact>}
                <Fact name="Vector index">{details.index ?? 'None: every tile is compared'}</Fact>
                <Fact name="Grid">{sentence(grid)}</Fact>
                {radiometry && <Fact name="Colours">{sentence(radiometry)}</Fact>}
                {bbox && <Fact name="Bounds">{`W ${bbox[0].toFixed(4)}  S ${bbox[1].toFixed(4)}\nE ${bbox[2].toFixed(4)}  N ${bbox[3].toFixed(4)}`}</Fact>}
                {details.created && <Fact name="Created">{minute(details.created)}</Fact>}
                {details.modified && <Fact name="Changed">{minute(details.modified)}</Fact>}
                {details.raster && (
                    <Fact name="Raster">
                        <span class="mono">{details.raster}</span>
                    </Fact>
                )}
            </dl>
            {details.prefect_url && (
                <a class="button small details-link" href={details.prefect_url} target="_blank" rel="noreferrer">
                    <Icon name="external" size={14} /> Run in Prefect
                </a>
            )}
        </>
    );
}
