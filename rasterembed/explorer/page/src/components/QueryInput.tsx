import {useId, useRef} from 'preact/hooks';
import {searchImage, searchText} from '../search_actions.ts';
import {notice, typed, upload} from '../search_state.ts';
import {hasQuery} from '../state.ts';
import {Icon} from './Icon.tsx';
import {IconButton} from './IconButton.tsx';

/** The ways to begin a search beside a click on the map: a tile id, a place, an image. */
export function QueryInput() {
    const id = useId();
    const file = useRef<HTMLInputElement>(null);
    return (
        <>
            {!hasQuery.value && <p class="muted">Click a tile on the map to find the tiles that are most like it.</p>}
            <form
                class="query-input"
                role="search"
                onSubmit={(event) => {
                    event.preventDefault();
                    if (typed.value.trim()) searchText(typed.value);
                }}
            >
                <label class="visually-hidden" for={id}>
                    Tile id, or latitude and longitude
                </label>
                <input
                    id={id}
                    class="input"
                    placeholder="Tile id, or latitude, longitude"
                    autocomplete="off"
                    spellcheck={false}
                    value={typed.value}
                    onInput={(event) => {
                        typed.value = event.currentTarget.value;
                    }}
                />
                <button type="submit" class="button icon" aria-label="Search" title="Search">
                    <Icon name="search" />
                </button>
                <IconButton icon="image" label="Search by an image file" onClick={() => file.current?.click()} />
                <input
                    ref={file}
                    type="file"
                    hidden
                    tabIndex={-1}
                    aria-label="Image file"
                    accept="image/png,image/jpeg,image/tiff,image/webp,.tif,.tiff"
                    onChange={(event) => {
                        const chosen = event.currentTarget.files?.[0];
                        if (chosen) void searchImage(chosen);
                        event.currentTarget.value = ''; // The same file can be chosen again.
                    }}
                />
            </form>
            {notice.value && <p class="query-notice">{notice.value}</p>}
            {upload.value.state === 'running' && <p class="muted">Sending {upload.value.name}…</p>}
            {upload.value.state === 'failed' && (
                <div class="notice bad" role="alert">
                    <strong>The image was not accepted</strong>
                    <p>{upload.value.text}</p>
                </div>
            )}
        </>
    );
}
