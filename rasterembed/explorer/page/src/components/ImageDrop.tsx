import {useSignal} from '@preact/signals';
import {useEffect} from 'preact/hooks';
import {searchImage} from '../search_actions.ts';
import {openView} from '../state.ts';
import './ImageDrop.css';

const isFile = (event: DragEvent): boolean => event.dataTransfer?.types.includes('Files') ?? false;

/** An image that is dropped anywhere on the page becomes the query. */
export function ImageDrop() {
    const over = useSignal(false);
    useEffect(() => {
        const ends = new AbortController();
        const on = (type: 'dragenter' | 'dragleave' | 'dragover' | 'drop', run: (event: DragEvent) => void): void => {
            const listen = (event: DragEvent): void => {
                // Without this, the browser would open the file in place of the page.
                if (isFile(event)) {
                    event.preventDefault();
                    run(event);
                }
            };
            window.addEventListener(type, listen, {signal: ends.signal});
        };
        on('dragenter', () => {
            over.value = true;
        });
        // The pointer leaves the window when it goes to no other element.
        on('dragleave', ({relatedTarget}) => {
            if (relatedTarget === null) over.value = false;
        });
        on('dragover', ({dataTransfer}) => {
            if (dataTransfer) dataTransfer.dropEffect = openView.peek()?.searchable ? 'copy' : 'none';
        });
        on('drop', ({dataTransfer}) => {
            over.value = false;
            const file = dataTransfer?.files[0];
            if (file && openView.peek()?.searchable) void searchImage(file);
        });
        return () => ends.abort();
    }, []);
    if (!over.value) return null;
    const {title, about} = invitation();
    return (
        <div class="image-drop">
            <div class="image-drop-box" role="status">
                <strong>{title}</strong>
                <span class="muted">{about}</span>
            </div>
        </div>
    );
}

function invitation(): {title: string; about: string} {
    const view = openView.value;
    if (view === null) return {title: 'Open a dataset first', about: 'An image is searched in the view that is open.'};
    if (!view.searchable) return {title: 'No search by image here', about: 'This view cannot be searched.'};
    return {
        title: 'Drop the image to search with it',
        about: 'PNG, JPEG, TIFF or WebP, at most 20 MiB. It should show about as much ground as a tile.',
    };
}
