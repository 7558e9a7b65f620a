import {useSignal} from '@preact/signals';
import {useEffect, useRef} from 'preact/hooks';
import type {ApiProblem, ExportFormat} from '../api.ts';
import {isAbort, problemFrom} from '../problems.ts';
import {exportAnswer} from '../search_actions.ts';
import {exporting} from '../search_state.ts';
import {CopyButton} from './CopyButton.tsx';
import {Dialog} from './Dialog.tsx';
import {ProblemNotice} from './ProblemNotice.tsx';
import './ExportDialog.css';

const FORMATS: {format: ExportFormat; name: string; about: string}[] = [
    {format: 'geojson', name: 'GeoJSON', about: 'Outlines in longitude and latitude, for QGIS and web maps.'},
    {format: 'geoparquet', name: 'GeoParquet', about: 'The same table for GeoPandas, DuckDB and large answers.'},
    {format: 'python', name: 'Python', about: 'A program that asks the store and gives the same answer.'},
];

/** The answer as a file, or as a Python program. */
export function ExportDialog() {
    return exporting.value ? <OpenDialog /> : null;
}

function OpenDialog() {
    const busy = useSignal<ExportFormat | null>(null);
    const problem = useSignal<ApiProblem | null>(null);
    const program = useSignal<{text: string; name: string} | null>(null);
    const request = useRef(new AbortController());
    // A file that comes after the dialog was closed is not wanted any more.
    useEffect(() => () => request.current.abort(), []);
    const run = async (format: ExportFormat): Promise<void> => {
        busy.value = format;
        problem.value = null;
        try {
            const found = await exportAnswer(format, request.current.signal);
            if (found && format === 'python') program.value = {text: await found.file.text(), name: found.name};
            else if (found) save(found.file, found.name);
        } catch (error) {
            if (!isAbort(error)) problem.value = problemFrom(error);
        }
        busy.value = null;
    };
    return (
        <Dialog
            title="Export the answer"
            class="export"
            onClose={() => {
                exporting.value = false;
            }}
        >
            {FORMATS.map(({format, name, about}) => (
                <div key={format} class="export-format">
                    <strong>{name}</strong>
                    <span class="muted">{about}</span>
                    <button
                        type="button"
                        class="button"
                        aria-label={format === 'python' ? 'Show the Python program' : `Download ${name}`}
                        disabled={busy.value !== null}
                        onClick={() => void run(format)}
                    >
                        {format === 'python' ? 'Show' : 'Download'}
                    </button>
                </div>
            ))}
            {busy.value !== null && (
                <p class="muted" role="status">
                    Writing the file…
                </p>
            )}
            {problem.value && <ProblemNotice problem={problem.value} />}
            {program.value && <Program {...program.value} />}
        </Dialog>
    );
}

function Program({text, name}: {text: string; name: string}) {
    return (
        <>
            <pre class="export-code" tabIndex={0} aria-label="Python program">
                {text}
            </pre>
            <div class="strip-message-actions">
                <CopyButton text={text} label="Copy the program" />
                <button
                    type="button"
                    class="button small"
                    aria-label="Download Python"
                    onClick={() => save(new Blob([text], {type: 'text/x-python'}), name)}
                >
                    Download
                </button>
            </div>
        </>
    );
}

/** Let the browser save a file. */
function save(file: Blob, name: string): void {
    const url = URL.createObjectURL(file);
    const link = document.createElement('a');
    link.href = url;
    link.download = name;
    link.click();
    // The browser reads the file after this call. A minute is enough to begin.
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
