import type {ComponentChildren} from 'preact';
import {dayOf} from '../dates.ts';
import {flyToTile} from '../map/flights.ts';
import {removeStart, searchFrom, toggleExample} from '../search_actions.ts';
import type {ExampleRole} from '../search_actions.ts';
import {details, tilesAtClick} from '../search_state.ts';
import {hasQuery, nameOfTile, query, selectedTile, uploadedImage} from '../state.ts';
import {positionText, tileOf} from '../texts.ts';
import {IconButton} from './IconButton.tsx';
import {Thumbnail} from './Thumbnail.tsx';
import './QueryChips.css';

/** The examples of the query, each with a button that removes it. */
export function QueryChips() {
    const {tile, lonlat, image, like, unlike} = query.value;
    if (!hasQuery.value && unlike.length === 0) return null;
    return (
        <div class="chips">
            {tile !== null && <StartTile name={tile} />}
            {lonlat !== null && (
                <Chip label={positionText(lonlat[0], lonlat[1])} remove="Remove the place" onRemove={removeStart}>
                    <span class="chip-kind">Place</span>
                </Chip>
            )}
            {image !== null && <StartImage digest={image} />}
            <Marked role="like" names={like} />
            <Marked role="unlike" names={unlike} />
        </div>
    );
}

function Chip(props: {label: string; remove: string; onRemove: () => void; children: ComponentChildren}) {
    return (
        <div class="chip">
            {props.children}
            <span class="chip-label" title={props.label}>
                {props.label}
            </span>
            <IconButton icon="close" label={props.remove} class="quiet small" onClick={props.onRemove} />
        </div>
    );
}

/** The tile of the query. Several scenes may show its place: then another scene can be chosen. */
function StartTile({name}: {name: string}) {
    const known = selectedTile.value;
    const others = tilesAtClick.value.some((one) => nameOfTile(one) === name) ? tilesAtClick.value : [];
    return (
        <div class="start">
            <span class="start-picture">
                <Thumbnail name={name} />
            </span>
            <div class="start-text">
                <strong title={name}>{tileOf(name)}</strong>
                {others.length > 1 ? (
                    <select
                        class="select"
                        aria-label="Scene of the tile"
                        value={name}
                        onChange={(event) => {
                            const chosen = others.find((one) => nameOfTile(one) === event.currentTarget.value);
                            if (chosen) searchFrom(chosen);
                        }}
                    >
                        {others.map((one) => (
                            <option key={nameOfTile(one)} value={nameOfTile(one)}>
                                {[dayOf(one.acquired), one.dataset_id].filter(Boolean).join(' · ')}
                            </option>
                        ))}
                    </select>
                ) : (
                    <span class="muted chip-label">{(known && dayOf(known.acquired)) || (name.includes('/') && name.split('/')[0])}</span>
                )}
                <div class="start-actions">
                    {known && (
                        <>
                            <IconButton
                                icon="target"
                                label="Show the tile on the map"
                                class="quiet small"
                                onClick={() => flyToTile(known, known.geometry)}
                            />
                            <IconButton
                                icon="more"
                                label="Details of the tile"
                                class="quiet small"
                                onClick={() => {
                                    details.value = name;
                                }}
                            />
                        </>
                    )}
                    <IconButton icon="close" label="Remove the tile" class="quiet small" onClick={removeStart} />
                </div>
            </div>
        </div>
    );
}

function StartImage({digest}: {digest: string}) {
    const uploaded = uploadedImage.value?.image === digest ? uploadedImage.value : null;
    return (
        <div class="start">
            <span class="start-picture">
                {uploaded ? <Preview url={uploaded.preview} /> : <span class="thumbnail">image</span>}
            </span>
            <div class="start-text">
                <strong title={uploaded?.name ?? digest}>{uploaded?.name ?? `Image ${digest.slice(0, 8)}`}</strong>
                <span class="muted">{uploaded ? `${uploaded.width} × ${uploaded.height} px` : 'uploaded before'}</span>
                {uploaded?.remark && <span class="muted">{uploaded.remark}</span>}
                <div class="start-actions">
                    <IconButton icon="close" label="Remove the image" class="quiet small" onClick={removeStart} />
                </div>
            </div>
        </div>
    );
}

/** The dropped image itself. Browsers do not show TIFF files, so their picture is left out. */
function Preview({url}: {url: string}) {
    return (
        <img
            // A new picture gets a new element: the one before may be hidden.
            key={url}
            class="thumbnail"
            src={url}
            alt=""
            onError={(event) => {
                event.currentTarget.hidden = true;
            }}
        />
    );
}

function Marked({role, names}: {role: ExampleRole; names: string[]}) {
    if (names.length === 0) return null;
    const title = role === 'like' ? 'More like' : 'Less like';
    return (
        <div class={`marked marked-${role}`}>
            <span class="chip-kind">{title}</span>
            <ul>
                {names.map((name) => (
                    <li key={name} title={name}>
                        <span class="marked-picture">
                            <Thumbnail name={name} />
                        </span>
                        <IconButton
                            icon="close"
                            label={`Remove ${tileOf(name)} from “${title}”`}
                            class="small"
                            onClick={() => toggleExample(name, role)}
                        />
                    </li>
                ))}
            </ul>
        </div>
    );
}
