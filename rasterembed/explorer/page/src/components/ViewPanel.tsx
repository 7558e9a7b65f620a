import {closeView, loadView} from '../actions.ts';
import type {ViewDetails} from '../api.ts';
import {amountsOf, datesOfCard} from '../card_text.ts';
import {withRoot} from '../command_text.ts';
import {sentence} from '../format.ts';
import {inPageWords} from '../page_words.ts';
import {store, valueOf, view, viewKey} from '../state.ts';
import {DetailsPanel} from './DetailsPanel.tsx';
import {IconButton} from './IconButton.tsx';
import {LayersPanel} from './LayersPanel.tsx';
import {ProblemNotice} from './ProblemNotice.tsx';
import {ProgressBar} from './ProgressBar.tsx';
import {QualityPanel} from './QualityPanel.tsx';
import {SearchPanel} from './SearchPanel.tsx';
import {Section} from './Section.tsx';
import {StateBadge} from './StateBadge.tsx';
import './ViewPanel.css';

function Sections({details}: {details: ViewDetails}) {
    return (
        <>
            {!details.on_earth && (
                <div class="view-notice">
                    <p class="notice">
                        <strong>This raster has no place on Earth</strong>
                        It has no coordinate reference system. Its tiles lie on a made-up place.
                    </p>
                </div>
            )}
            {details.kind === 'datasets' && !details.searchable && <NotSearchable details={details} />}
            <Section title="Layers">
                <LayersPanel details={details} />
            </Section>
            <SearchPanel />
            <Section title="Details" open={false}>
                <DetailsPanel details={details} />
            </Section>
            <Section title="Quality" open={false} aside={details.qa ? (details.qa.passed ? 'Passed' : 'Failed') : 'Not checked'}>
                <QualityPanel details={details} />
            </Section>
        </>
    );
}

/** Why a dataset is shown, but not searched. */
function NotSearchable({details}: {details: ViewDetails}) {
    return (
        <div class="view-notice">
            <div class={`notice ${details.qa?.passed === false ? 'bad' : 'warn'}`}>
                <strong>{titleOfUnsearchable(details)}</strong>
                <p>{details.qa?.line ?? `The command “${withRoot(`rasterembed qa ${details.id}`)}” checks it.`}</p>
            </div>
        </div>
    );
}

function titleOfUnsearchable({qa, rows}: ViewDetails): string {
    if (rows === 0) return 'This dataset has no embedded tile';
    const why = qa ? 'did not pass its quality checks' : 'was not checked yet';
    return `This dataset ${why}. Its tiles are shown, but they cannot be searched`;
}

function Loading() {
    return (
        <div class="view-loading" role="status" aria-label="Loading">
            {[64, 160, 120].map((height) => (
                <div key={height} class={`skeleton height-${height}`} />
            ))}
        </div>
    );
}

/** The open dataset or collection: its name and state, and everything that can be done with it. */
export function ViewPanel() {
    const key = viewKey.value;
    if (!key) return null;
    const loaded = valueOf(view.value);
    const details = loaded?.id === key.id && loaded.kind === key.kind ? loaded : null;
    const stored = valueOf(store.value)?.[key.kind].find(({id}) => id === key.id) ?? null;
    const card = details ?? stored;
    const progress = stored?.progress ?? null;
    const dates = card && datesOfCard(card);
    return (
        <div class="view-panel">
            <div class="view-head">
                <IconButton icon="back" label="All datasets and collections" onClick={closeView} class="quiet small" />
                <div class="view-name">
                    <h2 title={key.id} tabIndex={-1}>{key.id}</h2>
                    <p class="muted">
                        <span>{[key.kind === 'collections' ? 'Collection' : 'Dataset', card && amountsOf(card)].filter(Boolean).join(' · ')}</span>
                        {dates && <span>{dates}</span>}
                    </p>
                </div>
                {card && <StateBadge card={stored ?? card} />}
            </div>
            {progress && (
                <div class="view-notice">
                    <ProgressBar progress={progress} />
                </div>
            )}
            {view.value.state === 'failed' && (
                <div class="view-notice">
                    <ProblemNotice
                        problem={view.value.problem}
                        retry={() => void loadView()}
                        other={{label: 'Go to the list', onClick: closeView}}
                    />
                </div>
            )}
            {details?.problem && (
                <div class="view-notice">
                    <p class="notice warn">{sentence(inPageWords(details.problem))}</p>
                </div>
            )}
            {details ? <Sections details={details} /> : view.value.state === 'loading' && <Loading />}
        </div>
    );
}
