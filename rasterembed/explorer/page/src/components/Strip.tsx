/** The answer of a search as a strip of thumbnails, and its states: loading, empty, error. */
import {useSignal} from '@preact/signals';
import {useEffect, useRef} from 'preact/hooks';
import type {Answer} from '../api.ts';
import {sentence} from '../format.ts';
import {clearQuery, searchAgain} from '../search_actions.ts';
import {exporting, searching} from '../search_state.ts';
import {inPageWords} from '../page_words.ts';
import {rangeText} from '../similarity_range.ts';
import {answer, hoveredHit, k, similarityRange} from '../state.ts';
import {secondsText} from '../texts.ts';
import {CountSlider} from './CountSlider.tsx';
import {EmptyAnswer} from './EmptyAnswer.tsx';
import {HitCard} from './HitCard.tsx';
import {Icon} from './Icon.tsx';
import {IconButton} from './IconButton.tsx';
import {ProblemNotice} from './ProblemNotice.tsx';
import './Strip.css';

/** Number of empty cards while an answer is on its way. More would not be seen. */
const MOST_WAITING = 24;

export function Strip() {
    const shown = answer.value;
    const notes = useSignal(false);
    const waiting = searching.value;
    if (shown.state === 'idle' && !waiting) return null;
    const ready = shown.state === 'ready' && !waiting ? shown.value : null;
    const failed = shown.state === 'failed' && !waiting ? shown.problem : null;
    const hints = ready?.hints.map((hint) => sentence(inPageWords(hint))) ?? [];
    const found = ready !== null && ready.features.length > 0;
    return (
        <section class="strip" aria-label="Similar tiles" aria-busy={waiting}>
            <header class="strip-head">
                <h2>{waiting ? 'Searching…' : titleOf(ready)}</h2>
                {ready && <span class="muted strip-time">{secondsText(ready.seconds)}</span>}
                {ready && similarityRange.value && (
                    <span class="muted strip-range" title="A bar is full at the largest similarity of this answer, and almost empty at the smallest">
                        {rangeText(similarityRange.value)}
                    </span>
                )}
                {(ready || waiting) && (
                    <button
                        type="button"
                        class="button quiet small"
                        disabled={waiting}
                        aria-expanded={notes.value}
                        aria-controls="strip-notes"
                        onClick={() => {
                            notes.value = !notes.value;
                        }}
                    >
                        <Icon name="info" size={14} />
                        <span class="strip-word">How it was found</span>
                    </button>
                )}
                <div class="strip-head-end">
                    <CountSlider />
                    {(found || waiting) && (
                        <button
                            type="button"
                            class="button small"
                            disabled={waiting}
                            onClick={() => {
                                exporting.value = true;
                            }}
                        >
                            <Icon name="download" size={14} />
                            <span class="strip-word">Export</span>
                        </button>
                    )}
                    <IconButton icon="close" label="Close the answer" class="quiet small" onClick={clearQuery} />
                </div>
            </header>
            {ready && notes.value && <Notes shown={ready} />}
            {found && hints.map((hint) => (
                <p key={hint} class="notice warn strip-hint">
                    {hint}
                </p>
            ))}
            {found && <Hits shown={ready} />}
            {ready && !found && <EmptyAnswer hints={hints} />}
            {waiting && <Waiting />}
            {failed && (
                <div class="strip-message">
                    <ProblemNotice problem={failed} retry={() => void searchAgain()} />
                </div>
            )}
        </section>
    );
}

function titleOf(ready: Answer | null): string {
    if (ready === null) return 'The search failed';
    const count = ready.features.length;
    if (count === 0) return 'No tile found';
    return count === 1 ? '1 similar tile' : `${count} similar tiles`;
}

/** Empty cards. The strip has the same height with them as with an answer, so that nothing moves when it comes. */
function Waiting() {
    return (
        <div class="strip-hits" aria-hidden="true">
            {Array.from({length: Math.min(k.value, MOST_WAITING)}, (_, place) => (
                <div key={place} class="hit hit-waiting skeleton">
                    <span class="thumbnail" />
                    <span class="hit-text">
                        <span>&nbsp;</span>
                        <span>&nbsp;</span>
                        <span>&nbsp;</span>
                    </span>
                    <span class="hit-actions">
                        <span class="hit-action" />
                    </span>
                </div>
            ))}
        </div>
    );
}

function Notes({shown}: {shown: Answer}) {
    const lines = [`Query: ${shown.query}`, `Model: ${shown.model}`, ...shown.notes.map(inPageWords)];
    return (
        <ul class="strip-notes" id="strip-notes" tabIndex={0} aria-label="How this answer was found">
            {lines.map((line) => (
                <li key={line}>{line}</li>
            ))}
        </ul>
    );
}

/** The tiles. The Tab key reaches one of them, and the arrow keys go to the others. */
function Hits({shown}: {shown: Answer}) {
    const list = useRef<HTMLOListElement>(null);
    const active = useSignal(0);
    const hits = shown.features;
    const current = Math.min(active.value, hits.length - 1);
    const cards = (): Element[] => [...(list.current?.children ?? [])];
    const last = useRef(shown);
    const isScrolled = useRef(false);
    useEffect(() => {
        // A new list begins at its first tile by itself.
        if (last.current === shown) return;
        last.current = shown;
        // To scroll a list computes the layout of the page once more, also if the list was not scrolled.
        if (isScrolled.current) list.current?.scrollTo({left: 0});
        active.value = 0;
    }, [shown]);
    // A tile that the pointer finds on the map comes into view. A tile that the pointer finds here is in view already.
    useEffect(
        () =>
            hoveredHit.subscribe((name) => {
                if (name === null || list.current?.matches(':hover')) return;
                const card = cards().find((one) => one instanceof HTMLElement && one.dataset['tile'] === name);
                card?.scrollIntoView({block: 'nearest', inline: 'nearest'});
            }),
        [],
    );
    const goTo = (place: number): void => {
        active.value = Math.max(0, Math.min(hits.length - 1, place));
        const card = cards()[active.value];
        card?.querySelector<HTMLButtonElement>('.hit-main')?.focus({preventScroll: true});
        card?.scrollIntoView({block: 'nearest', inline: 'nearest'});
    };
    const onKeyDown = (event: KeyboardEvent): void => {
        if (event.altKey || event.ctrlKey || event.metaKey) return;
        const places: Record<string, number> = {
            ArrowRight: current + 1,
            ArrowLeft: current - 1,
            Home: 0,
            End: hits.length - 1,
        };
        const place = places[event.key];
        if (place === undefined) return;
        event.preventDefault();
        goTo(place);
    };
    return (
        <ol
            ref={list}
            class="strip-hits"
            aria-label="Tiles of the answer, the nearest first. The arrow keys go from tile to tile."
            onKeyDown={onKeyDown}
            onScroll={({currentTarget}) => {
                isScrolled.current = currentTarget.scrollLeft > 0;
            }}
            onFocusCapture={(event) => {
                const card = event.target instanceof Element ? event.target.closest('.hit') : null;
                const place = card === null ? -1 : cards().indexOf(card);
                if (place >= 0) active.value = place;
            }}
        >
            {hits.map((hit, place) => (
                // The elements of a card are used again for the tile with the same rank in the next answer. New elements
                // would take the browser several times as long.
                <HitCard key={place} hit={hit} active={place === current} />
            ))}
        </ol>
    );
}
