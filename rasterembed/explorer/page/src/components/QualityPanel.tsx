import {openLightbox} from '../actions.ts';
import type {ViewDetails} from '../api.ts';
import {withRoot} from '../command_text.ts';
import './QualityPanel.css';

/** The verdict of the quality checks, and the pictures of their report. */
export function QualityPanel({details}: {details: ViewDetails}) {
    const {qa, pictures} = details;
    const command = `rasterembed qa ${details.kind === 'collections' ? '--collection ' : ''}${details.id}`;
    return (
        <>
            {qa ? (
                <p class={`notice ${qa.passed ? '' : 'bad'}`}>{qa.line}</p>
            ) : (
                <p class="notice">The quality is not checked. The command “{withRoot(command)}” checks it.</p>
            )}
            {pictures.length > 0 && (
                <ul class="pictures">
                    {pictures.map(({name, title, url}, place) => (
                        <li key={name}>
                            <button type="button" class="picture" onClick={() => openLightbox(place)}>
                                <img src={url} alt="" loading="lazy" decoding="async" />
                                <span>{title}</span>
                            </button>
                        </li>
                    ))}
                </ul>
            )}
        </>
    );
}
