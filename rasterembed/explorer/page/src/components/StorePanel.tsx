import {useState} from 'preact/hooks';
import {loadStore} from '../actions.ts';
import type {Card, StoreAnswer} from '../api.ts';
import {matches} from '../card_text.ts';
import {withRoot} from '../command_text.ts';
import {count} from '../format.ts';
import {store, valueOf} from '../state.ts';
import {CardItem} from './CardItem.tsx';
import {ProblemNotice} from './ProblemNotice.tsx';
import './StorePanel.css';

/** From this number of cards on, the list has a field to look for one. */
const MANY = 6;

function Skeletons() {
    return (
        <div class="cards-loading" role="status" aria-label="Loading the store">
            {[0, 1, 2].map((row) => (
                <div key={row} class="skeleton" />
            ))}
        </div>
    );
}

function EmptyStore() {
    return (
        <div class="notice">
            <strong>Nothing is in this store yet</strong>
            <p>Embed a raster, then load the list again:</p>
            <code class="command">{withRoot('rasterembed embed scene.tif')}</code>
            <p>If your datasets are elsewhere, start the explorer with another --root.</p>
            <button type="button" class="button small" onClick={() => void loadStore()}>
                Load again
            </button>
        </div>
    );
}

function Cards({title, cards}: {title: string; cards: Card[]}) {
    if (cards.length === 0) return null;
    return (
        <section aria-label={title}>
            <h2 class="cards-title">
                {title} <span class="muted">{count(cards.length)}</span>
            </h2>
            <ul class="cards">
                {cards.map((card) => (
                    <CardItem key={card.id} card={card} />
                ))}
            </ul>
        </section>
    );
}

function Lists({value}: {value: StoreAnswer}) {
    const [words, setWords] = useState('');
    const total = value.datasets.length + value.collections.length;
    if (total === 0) return <EmptyStore />;
    const collections = value.collections.filter((card) => matches(card, words));
    const datasets = value.datasets.filter((card) => matches(card, words));
    return (
        <>
            {total >= MANY && (
                <input
                    type="search"
                    class="input"
                    placeholder={`Find one of ${count(total)}`}
                    aria-label="Find a dataset or a collection"
                    value={words}
                    onInput={(event) => setWords(event.currentTarget.value)}
                />
            )}
            <Cards title="Collections" cards={collections} />
            <Cards title="Datasets" cards={datasets} />
            {collections.length + datasets.length === 0 && <p class="notice">No name, model or raster has “{words}”.</p>}
        </>
    );
}

/** All datasets and collections of the store. */
export function StorePanel() {
    const value = valueOf(store.value);
    return (
        <div class="store-panel">
            {store.value.state === 'failed' && <ProblemNotice problem={store.value.problem} retry={() => void loadStore()} />}
            {value ? <Lists value={value} /> : store.value.state === 'loading' && <Skeletons />}
        </div>
    );
}
