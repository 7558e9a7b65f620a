/**
 * Run an action when the browser has drawn the page as it is now. Return a function that ends this.
 *
 * The first frame draws the page. It is done when the second one begins.
 */
export function afterPaint(action: () => void): () => void {
    let timer: number | undefined;
    let frame = requestAnimationFrame(() => {
        frame = requestAnimationFrame(() => {
            timer = window.setTimeout(action);
        });
    });
    return () => {
        cancelAnimationFrame(frame);
        clearTimeout(timer);
    };
}
