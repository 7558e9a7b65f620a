import {useSignal} from '@preact/signals';
import {thumbnailUrl} from '../api.ts';
import {openView} from '../state.ts';
import './Thumbnail.css';

/** The picture of a tile `dataset_id/tile_id`. A picture that cannot be read becomes a short text. */
export function Thumbnail({name}: {name: string}) {
    const failed = useSignal<string | null>(null);
    const view = openView.value;
    const [dataset, tile] = name.split('/');
    const url = view && dataset && tile ? thumbnailUrl(view, view.v, dataset, tile) : null;
    if (url === null || failed.value === url) return <span class="thumbnail">no picture</span>;
    return (
        <img
            // A new picture gets a new element. An old element shows its old picture until the new one is loaded.
            key={url}
            class="thumbnail"
            src={url}
            alt=""
            loading="lazy"
            decoding="async"
            draggable={false}
            onError={() => {
                failed.value = url;
            }}
        />
    );
}
