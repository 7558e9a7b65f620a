import {closeLightbox, openLightbox} from '../actions.ts';
import {lightbox, openView} from '../state.ts';
import {Dialog} from './Dialog.tsx';
import {IconButton} from './IconButton.tsx';
import './Lightbox.css';

/** A picture of the quality report at full size. The arrow keys show its neighbours. */
export function Lightbox() {
    const pictures = openView.value?.pictures ?? [];
    const place = lightbox.value;
    const picture = place === null ? undefined : pictures[place];
    if (place === null || !picture) return null;
    const move = (steps: number): void => openLightbox((place + steps + pictures.length) % pictures.length);
    return (
        <Dialog
            title={picture.title}
            onClose={closeLightbox}
            onKeyDown={(event) => {
                if (event.key === 'ArrowLeft') move(-1);
                if (event.key === 'ArrowRight') move(1);
            }}
            class="lightbox"
        >
            <div class="lightbox-stage">
                <img key={picture.url} src={picture.url} alt={picture.title} />
                {pictures.length > 1 && (
                    <div class="lightbox-steps">
                        <IconButton icon="left" label="Picture before" onClick={() => move(-1)} />
                        <span class="muted">
                            {place + 1} of {pictures.length}
                        </span>
                        <IconButton icon="right" label="Next picture" onClick={() => move(1)} />
                    </div>
                )}
            </div>
        </Dialog>
    );
}
